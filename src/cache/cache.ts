import type { Backend, Pages } from '../backend.js';
import { OutOfPagesError } from '../errors.js';
import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';
import type { WarmOptions, WebgpuBackend } from '../webgpu/backend.js';
import { BlockPool } from './blocks.js';
import { checkOrigin, originOf, readCheckpoint, writeCheckpoint, type Checkpoint, type Origin, type RestoreReport } from './checkpoint.js';
import { resolveCache, type KvCacheOptions, type Layer } from './config.js';
import { Sequence } from './sequence.js';
import { Step, type Reservation, type StepEntry } from './step.js';
import { TableStore } from './tables.js';

/** What a cache takes, and what the same tokens would take unquantized. */
export interface MemoryReport {
  /** Bytes of all pages of all layers. */
  readonly bytes: number;
  /** Bytes of the pages that sequences or open steps hold. */
  readonly bytesInUse: number;
  /** Bytes per token, all layers, keys, values and scales. */
  readonly bytesPerToken: number;
  /** Bytes that an f32 and an f16 cache of the same capacity would take. */
  readonly f32Bytes: number;
  readonly f16Bytes: number;
}

/**
 * A paged key/value cache of all layers of a model, for any number of sequences.
 *
 * A page index means the same tokens in every layer: a sequence has one list of pages. Pages are shared between forks and
 * copied when one of them writes. In a contiguous cache that list is one page, which is as large as a sequence can get.
 */
export class KvCache {
  /** Tokens per page. */
  readonly blockSize: number;
  /** Tokens that fit, all sequences together. */
  readonly capacity: number;
  /** @internal sequences that were not freed */
  readonly live = new Set<Sequence>();
  readonly #layers: readonly Layer[];
  readonly #pageCount: number;
  readonly #contiguous: boolean;
  readonly #origin: Origin;
  readonly #tables: TableStore;
  #backend: Backend;
  #pages: readonly Pages[];
  #pool: BlockPool;
  #disposed = false;

  /**
   * @param backend stays the caller's: the cache does not dispose of it
   * @throws TypeError or RangeError naming the option that does not fit
   */
  constructor(backend: Backend, options: KvCacheOptions) {
    const { layers, pageCount, blockSize, contiguous } = resolveCache(options);
    this.#layers = layers;
    this.#pageCount = pageCount;
    this.#contiguous = contiguous;
    this.blockSize = blockSize;
    this.capacity = this.#pageCount * this.blockSize;
    this.#backend = backend;
    this.#pages = createAllPages(backend, this.#layers, this.#pageCount);
    this.#origin = originOf(layers.map(({ layout }) => layout), this.capacity);
    this.#pool = new BlockPool(this.#pageCount);
    this.#tables = new TableStore(this.blockSize);
  }

  /** @internal */
  get pool(): BlockPool {
    return this.#pool;
  }

  /** Number of layers. */
  get layers(): number {
    return this.#layers.length;
  }

  /** Pages that no sequence and no open step holds. */
  get freePages(): number {
    return this.pool.free;
  }

  get memory(): MemoryReport {
    const pageBytes = this.#pages.reduce((sum, { layout }) => sum + layout.bytes, 0);
    const values = this.#layers.reduce((sum, { layout }) => sum + 2 * layout.kvHeads * layout.headDim, 0);
    return {
      bytes: pageBytes * this.#pageCount,
      bytesInUse: pageBytes * (this.#pageCount - this.pool.free),
      bytesPerToken: pageBytes / this.blockSize,
      f32Bytes: values * 4 * this.capacity,
      f16Bytes: values * 2 * this.capacity,
    };
  }

  /**
   * Compiles the kernels of all layers where the backend has any to compile, so that none is compiled in a decode loop.
   * @param options.maxSeqlenQ new tokens of a sequence in one step, at most. Default: any number
   */
  async warm(options: Pick<WarmOptions, 'maxSeqlenQ'> = {}): Promise<void> {
    if (this.#backend.kind !== 'webgpu') return;
    const backend = this.#backend as WebgpuBackend;
    await Promise.all(this.#layers.map(({ queryHeads }, i) => backend.warm(this.#pages[i].layout, { ...options, queryHeads })));
  }

  /** A sequence without tokens. */
  createSequence(): Sequence {
    return new Sequence(this);
  }

  /** The pages of one layer, for level-1 operations, import and export; after a `restore` they are others. */
  pages(layer: number): Pages {
    return this.#pages[checkInteger(layer, 'layer', 0, this.#layers.length - 1)];
  }

  /**
   * Starts a step and reserves pages for its tokens in every layer: the only place that can run out.
   * @throws OutOfPagesError, TypeError or RangeError; nothing is reserved or written then
   */
  begin(entries: readonly StepEntry[]): Step {
    this.#checkEntries(entries);
    if (this.#contiguous) this.#checkRuns(entries);
    const need = entries.reduce((sum, entry) => sum + this.#pagesNeeded(entry), 0);
    if (need > this.pool.free) throw new OutOfPagesError(need, this.pool.free);
    const reservations = entries.map((entry) => this.#reserve(entry));
    const copies = reservations.filter(({ replaced }) => replaced !== undefined);
    const from = copies.map(({ replaced }) => replaced!);
    const to = copies.map(({ blocks, sequence }) => blocks[sequence.blocks.length - 1]);
    const step = new Step(this.#backend, this.pool, this.#layers, this.#pages, reservations, this.#tables);
    try {
      for (const pages of this.#pages) pages.copyPages(from, to);
    } catch (error) {
      step.abort();
      throw error;
    }
    return step;
  }

  #checkEntries(entries: readonly StepEntry[]): void {
    if (!Array.isArray(entries)) throw new TypeError(`"entries" expected an array, got ${describe(entries)}`);
    const seen = new Set<Sequence>();
    for (const [index, entry] of (entries as readonly StepEntry[]).entries()) {
      if (typeof entry !== 'object' || entry === null) throw new TypeError(`"entries[${index}]" expected { sequence, tokens }, got ${describe(entry)}`);
      const { sequence, tokens } = entry;
      if (!(sequence instanceof Sequence) || sequence.cache !== this) throw new TypeError(`"entries[${index}].sequence" expected a sequence of this cache, got ${describe(sequence)}`);
      sequence.assertIdle();
      if (seen.has(sequence)) throw new TypeError(`"entries[${index}].sequence" expected each sequence once, got one again`);
      seen.add(sequence);
      checkInteger(tokens, `entries[${index}].tokens`, 0);
    }
  }

  /** A sequence of a contiguous cache is one run of slots: there is no second page for it, free or not. */
  #checkRuns(entries: readonly StepEntry[]): void {
    for (const { sequence, tokens } of entries) {
      const held = sequence.blocks.length;
      if (sequence.length + tokens <= this.blockSize) continue;
      const need = Math.ceil((sequence.length + tokens) / this.blockSize) - held;
      throw new OutOfPagesError(need, 1 - held, `a sequence has one, of ${this.blockSize} tokens: truncate it`);
    }
  }

  /** Whether new tokens would go into a page that another sequence holds too. */
  #copiesLast({ sequence, tokens }: StepEntry): boolean {
    const last = sequence.blocks.at(-1);
    return tokens > 0 && last !== undefined && sequence.length % this.blockSize !== 0 && this.pool.isShared(last);
  }

  #pagesNeeded(entry: StepEntry): number {
    const blocks = Math.ceil((entry.sequence.length + entry.tokens) / this.blockSize);
    return blocks - entry.sequence.blocks.length + (this.#copiesLast(entry) ? 1 : 0);
  }

  #reserve(entry: StepEntry): Reservation {
    const { sequence } = entry;
    const copies = this.#copiesLast(entry);
    const taken = Array.from({ length: this.#pagesNeeded(entry) }, () => this.pool.take());
    const kept = copies ? sequence.blocks.slice(0, -1) : sequence.blocks;
    // Most tokens of a decode go into the page of the one before: the list, which may be long, stays the same then.
    const blocks = taken.length === 0 ? sequence.blocks : [...kept, ...taken];
    sequence.enterStep();
    return { sequence, tokens: entry.tokens, taken, blocks, replaced: copies ? sequence.blocks.at(-1) : undefined };
  }

  /**
   * Reads back what all sequences hold, for {@link restore}. It is what they hold at the time of the call; of what was
   * recorded into encoders, that which was submitted. They may go on meanwhile; but pages that are still being read count as
   * shared, so that steps which write into them copy them first.
   * @throws Error while a step is open
   */
  async checkpoint(): Promise<Checkpoint> {
    this.#assertAtRest('checkpoint');
    const sequences = [...this.live].map(({ id, length, blocks }) => ({ id, length, blocks }));
    const held = new Set(sequences.flatMap(({ blocks }) => blocks));
    const pool = this.#pool;
    for (const page of held) pool.share(page);
    try {
      return await readCheckpoint(this.#pages, this.#origin, sequences, held);
    } finally {
      for (const page of held) pool.release(page);
    }
  }

  /**
   * Goes on with new pages on this backend, of any kind, after a `DeviceLostError` or at any time. Sequences become what
   * they were at the checkpoint, bit for bit: also those that were truncated since. Those created since, and without a
   * checkpoint all, become empty. Those freed since stay so.
   *
   * The report says how many tokens each sequence has now and how many are gone: put those through the model again.
   * @param backend stays the caller's, as does the one before
   * @throws TypeError for a checkpoint that is not of this cache, Error while a step is open (`abort` it), and what the
   * backend throws where it has no room. The cache is as before then.
   */
  async restore(backend: Backend, checkpoint?: Checkpoint): Promise<RestoreReport> {
    this.#assertAtRest('restore');
    if (checkpoint !== undefined) checkOrigin(checkpoint, this.#origin);
    const pages = createAllPages(backend, this.#layers, this.#pageCount);
    try {
      if (checkpoint) await writeCheckpoint(pages, checkpoint);
      // A GPU says only when it is asked something that it had no memory for them, or has been lost.
      await Promise.all(pages.map((layer) => layer.export(0, 1)));
      // Much may have happened meanwhile.
      this.#assertAtRest('restore');
    } catch (error) {
      for (const layer of pages) layer.dispose();
      throw error;
    }
    for (const layer of this.#pages) layer.dispose();
    this.#backend = backend;
    this.#pages = pages;
    return this.#resume(checkpoint);
  }

  /** All sequences as they were at the checkpoint, and with that the owners of all pages. */
  #resume(checkpoint: Checkpoint | undefined): RestoreReport {
    const saved = new Map(checkpoint?.sequences.map((each) => [each.id, each]));
    const sequences = [...this.live].map((sequence) => {
      const { length, blocks } = saved.get(sequence.id) ?? { length: 0, blocks: [] };
      const lost = Math.max(0, sequence.length - length);
      sequence.become(length, blocks);
      return { sequence, length, lost };
    });
    this.#pool = new BlockPool(this.#pageCount, sequences.map(({ sequence }) => sequence.blocks));
    return { sequences, lost: sequences.reduce((sum, { lost }) => sum + lost, 0) };
  }

  #assertAtRest(action: string): void {
    if (this.#disposed) throw new TypeError('"cache" expected to be in use, got one that was disposed of');
    const busy = [...this.live].filter(({ isInStep }) => isInStep).length;
    if (busy > 0) throw new Error(`"${action}" expected no open step, got ${busy} sequences in one: commit or abort it first`);
  }

  /** Frees the pages of all layers; the backend stays as it is. */
  dispose(): void {
    this.#disposed = true;
    for (const pages of this.#pages) pages.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** All layers' pages, or none: a layer that does not fit gives back those before it. */
function createAllPages(backend: Backend, layers: readonly Layer[], count: number): Pages[] {
  const made: Pages[] = [];
  try {
    for (const { layout } of layers) made.push(backend.createPages(layout, count));
    return made;
  } catch (error) {
    for (const pages of made) pages.dispose();
    throw error;
  }
}
