/** Caches that go into files, and come back from them. */
import type { ByteSource } from '../files/byte-stream.js';
import { readSnapshot, writeSnapshot } from '../files/snapshot.js';
import { describe } from '../formats.js';
import { checkOptions } from '../options.js';
import { KvCache } from './cache.js';
import { Sequence } from './sequence.js';
import { Loading } from './snapshot-load.js';
import { Saving } from './snapshot-save.js';

/** Finishes for generators that nobody has any more. */
const abandoned = new FinalizationRegistry<() => void>((finish) => finish());

/** In a scope of its own: what finishes for a generator must not keep it. */
function once(body: () => void): () => void {
  let done = false;
  return () => {
    if (!done) body();
    done = true;
  };
}

/** The generator, after which something is to be done: once, when it has ended, however that came about, even if it never began. */
function thenDo<T>(inner: AsyncGenerator<T, void>, end: () => void): AsyncGenerator<T, void> {
  const finish = once(end);
  const ending = async (result: Promise<IteratorResult<T, void>>): Promise<IteratorResult<T, void>> => {
    try {
      return await result;
    } finally {
      finish();
    }
  };
  const outer: AsyncGenerator<T, void> = {
    next: async () => {
      const next = await inner.next().catch((error: unknown) => {
        finish();
        throw error;
      });
      if (next.done) finish();
      return next;
    },
    return: () => ending(inner.return()),
    throw: (error) => ending(inner.throw(error)),
    [Symbol.asyncIterator]: () => outer,
    [Symbol.asyncDispose]: async () => void (await outer.return()),
  };
  abandoned.register(outer, finish);
  return outer;
}

/** @throws TypeError unless it is one */
function checkCache(cache: KvCache): void {
  if (!(cache instanceof KvCache)) throw new TypeError(`"cache" expected a KvCache, got ${describe(cache)}`);
}

/** @throws TypeError or Error naming the sequence that does not fit */
function checkSequences(sequences: readonly Sequence[], cache: KvCache): readonly Sequence[] {
  if (!Array.isArray(sequences)) throw new TypeError(`"sequences" expected an array, got ${describe(sequences)}`);
  for (const [index, sequence] of (sequences as readonly Sequence[]).entries()) {
    if (!(sequence instanceof Sequence) || sequence.cache !== cache) throw new TypeError(`"sequences[${index}]" expected a sequence of this cache, got ${describe(sequence)}`);
    sequence.assertIdle();
    if (sequences.indexOf(sequence) < index) throw new TypeError(`"sequences[${index}]" expected each sequence once, got one again`);
  }
  return sequences;
}

/**
 * What sequences hold, as the bytes of a .safetensors file in chunks of at most 1 MiB: keys, values and scales bit for bit, what
 * forks share once, and a checksum of every layer. {@link loadSnapshot} takes it into any cache whose layers are the same.
 *
 * It is what they hold at the time of this call; of what was recorded into encoders, that which was submitted. They may go on
 * meanwhile, but until the generator has ended their pages count as shared, so that steps which write into them copy them first,
 * and `checkpoint` and `restore` refuse: end it with `return()` where it is not wanted after all, as `for await` and `pipeline`
 * do. One layer is in memory at a time. Tokens' ids are not saved.
 *
 * A file should get its name when it is whole, so that what stands there can always be restored:
 *
 * ```ts
 * import { createWriteStream } from 'node:fs';
 * import { rename } from 'node:fs/promises';
 * import { pipeline } from 'node:stream/promises';
 *
 * await pipeline(saveSnapshot(cache), createWriteStream('chat.safetensors.part', { flush: true }));
 * await rename('chat.safetensors.part', 'chat.safetensors');
 * ```
 * @param options.sequences default: all that were not freed, in the order in which they were made
 * @throws TypeError for what is no sequence of the cache, Error for one that is in a step
 */
export function saveSnapshot(cache: KvCache, options: { readonly sequences?: readonly Sequence[] } = {}): AsyncGenerator<Uint8Array, void> {
  checkCache(cache);
  // Sequences in their place would save all, and one conversation too many.
  if (typeof options !== 'object' || options === null || Array.isArray(options)) throw new TypeError(`"options" expected { sequences }, got ${describe(options)}`);
  checkOptions(options, 'options', { sequences: true });
  const saving = new Saving(cache.parts, checkSequences(options.sequences ?? [...cache.live], cache), cache.keyChain);
  const release = cache.occupy();
  saving.share();
  return thenDo(writeSnapshot(saving.head, (index) => saving.layer(index)), () => {
    saving.release();
    release();
  });
}

/**
 * New sequences with what {@link saveSnapshot} was given, in its order, bit for bit. The cache's layers must be those of the
 * snapshot: their number, heads, formats, granularities, recipes and given scales, windows, residuals. Its capacity, block size,
 * layout, `chunk` and backend may be others.
 *
 * ```ts
 * const [sequence] = await loadSnapshot(cache, createReadStream('chat.safetensors'));
 * ```
 *
 * Sequences that share tokens share pages, as far as pages of this size hold the same. A ring that is smaller than the snapshot's
 * keeps the newest tokens. A residual needs pages for all tokens that were not quantized yet. `matchPrefix` finds full pages
 * again where model, options and block size are those of the snapshot's cache; of their tokens no ids are known, so that it does
 * not find what comes behind them. Checksums tell what was damaged, not what was made up: load what you trust.
 *
 * Pages are taken before anything is written, also those that are kept for `matchPrefix` only, and nobody else has them until
 * all checksums have proved right. Whatever is thrown, there are no new sequences then, those that there are are as they were,
 * and all pages that were taken are free again. `checkpoint` and `restore` refuse meanwhile.
 * @param source of which a layer is in memory at a time
 * @param options.name what to call the snapshot in errors. Default `snapshot`
 * @throws FormatError for a file that is cut, changed, of another version, or none; TypeError naming what is not as the cache
 * has it; RangeError for a sequence that is longer than `context`; OutOfPagesError; whatever `source` and the backend throw
 */
export async function loadSnapshot(cache: KvCache, source: ByteSource, options: { readonly name?: string } = {}): Promise<Sequence[]> {
  checkCache(cache);
  checkOptions(options, 'options', { name: true });
  const release = cache.occupy();
  try {
    const loading = new Loading(cache.parts, cache.keyChain);
    try {
      await readSnapshot(source, options.name ?? 'snapshot', loading);
      // It may have been disposed of meanwhile.
      void cache.parts;
    } catch (error) {
      loading.release();
      throw error;
    }
    return loading.sequences.map(({ state, keys }) => cache.adopt(state, keys));
  } finally {
    release();
  }
}
