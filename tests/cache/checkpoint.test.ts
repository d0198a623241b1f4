import fc from 'fast-check';
import { equal, is, ok } from 'uvu/assert';
import { KvCache, wasmBackend } from '../../src/index.js';
import type { AttendResult, Backend, Checkpoint, KvCacheOptions, NhdTensors, Pages, RestoreReport, Sequence, WasmPages } from '../../src/index.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { appendToAll, assertHolds, assertSameResult, attendTo, cacheOf, concatenate, extend, f32, first, fp8, randomTokens, type LayerShape, type Tokens } from './tokens.js';

const test = suite('checkpoint and restore');
const backend = wasmBackend();

/** Sequences by their place in a list, so that a failure prints no whole cache. */
const told = ({ sequences, lost }: RestoreReport, all: readonly Sequence[]) => ({ lost, sequences: sequences.map((each) => [all.indexOf(each.sequence), each.length, each.lost]) });

async function refused(promise: Promise<unknown>, kind: new (...args: never[]) => Error, message: RegExp): Promise<void> {
  const error = await promise.then(() => undefined, (reason: unknown) => reason as Error);
  ok(error instanceof kind && message.test(error.message), `expected ${kind.name} ${String(message)}, got ${String(error)}`);
}

/** Another backend over the same memory, with some methods of its own for its pages. */
function backendWith(change: (pages: Pages) => Partial<Pages>, onCreate: () => void = () => {}): Backend {
  const inner = new Map<Pages, Pages>();
  const call = <T extends { readonly pages: Pages }>(given: T): T => ({ ...given, pages: inner.get(given.pages)! });
  return {
    kind: 'wasm', synchronous: false,
    createPages(layout, count) {
      onCreate();
      const pages = backend.createPages(layout, count);
      const outer: Pages = {
        layout, count, byteLength: pages.byteLength,
        copyPages: (from, to) => pages.copyPages(from, to),
        import: (tensors, at) => pages.import(tensors, at),
        export: (at, some) => pages.export(at, some),
        exportInto: (tensors, at) => pages.exportInto(tensors, at),
        dispose: () => pages.dispose(),
        [Symbol.dispose]: () => pages.dispose(),
        ...change(pages),
      };
      inner.set(outer, pages);
      return outer;
    },
    append: async (given) => backend.append(call(given)),
    requantize: async (given) => backend.requantize({ ...call(given), from: inner.get(given.from)! }),
    attend: async (given) => backend.attend(call(given)),
    dispose: () => {}, [Symbol.dispose]: () => {},
  };
}

const later = (): Promise<void> => new Promise((resolve) => void setTimeout(resolve, 1));
/** Reads pages some time after it was asked to, as a GPU might. */
const slowReader = (): Backend => backendWith((pages) => ({ export: async (at, count) => later().then(() => pages.export(at, count)) }));

/** Decode steps, one token each: what attention gives in every layer. */
async function decode(cache: KvCache, sequence: Sequence, { key, value }: Tokens, shape: LayerShape): Promise<AttendResult[]> {
  const numbers = random(3);
  const row = shape.kvHeads * shape.headDim;
  const results: AttendResult[] = [];
  for (let token = 0; token < key.length / row; token++) {
    const step = cache.begin([{ sequence, tokens: 1 }]);
    for (let layer = 0; layer < cache.layers; layer++) {
      await step.append(layer, key.slice(token * row, (token + 1) * row), value.slice(token * row, (token + 1) * row));
      results.push(await step.attend(layer, numbers.normals(shape.queryHeads * shape.headDim)));
    }
    step.commit();
  }
  return results;
}

const shapes: Record<string, LayerShape> = {
  f32, fp8,
  'e5m2 and f16': { ...f32, dtype: { k: 'e5m2', v: 'f16' } },
  'given scales': { ...f32, dtype: 'fp8', granularity: 'tensor', scale: { k: 0.1, v: 2 } },
};
for (const [name, shape] of Object.entries(shapes)) {
  test(`what comes after a checkpoint comes again after a restore, bit for bit (${name})`, async () => {
    const [before, since] = [9, 7].map((count) => randomTokens(random(count), shape, count));
    const others = { fresh: wasmBackend(), threaded: wasmBackend({ threads: 2 }), slow: slowReader(), same: backend };
    for (const [kind, other] of Object.entries(others)) {
      const cache = cacheOf(backend, shape, 12);
      const sequence = cache.createSequence();
      extend(cache, sequence, before, shape);
      const checkpoint = await cache.checkpoint();
      const expected = await decode(cache, sequence, since, shape);
      for (const target of [other, backend]) {
        equal(told(await cache.restore(target, checkpoint), [sequence]), { lost: 7, sequences: [[0, 9, 7]] });
        is(cache.freePages, 12 - 3);
        const actual = await decode(cache, sequence, since, shape);
        expected.forEach((result, i) => assertSameResult(actual[i], result, `${kind}, attention ${i}`));
      }
      cache.dispose();
    }
    for (const other of Object.values(others)) if (other !== backend) other.dispose();
  });
}

test('forks share their pages again, and copy them when they write', async () => {
  const cache = cacheOf(backend, fp8, 12);
  const numbers = random(21);
  const [shared, a, b, c] = [6, 3, 2, 5].map((count) => randomTokens(numbers, fp8, count));
  const sequence = cache.createSequence();
  extend(cache, sequence, shared, fp8);
  const [twin, short] = [sequence.fork(), sequence.fork()];
  short.truncate(3);
  const free = cache.freePages;
  const checkpoint = await cache.checkpoint();
  is(cache.freePages, free);
  for (const each of [sequence, twin, short]) extend(cache, each, a, fp8);
  for (let time = 0; time < 2; time++) {
    await cache.restore(wasmBackend(), checkpoint);
    is(cache.freePages, free);
    is(twin.blocks[1], sequence.blocks[1]);
    const parts = [a, b, c];
    const step = cache.begin([sequence, twin, short].map((each, i) => ({ sequence: each, tokens: [3, 2, 5][i] })));
    is(cache.freePages, free - 3 - 2, 'copies: all but the last owner of what is shared; and two more pages');
    appendToAll(cache, step, concatenate(parts));
    step.commit();
    const there = await moved(cache);
    [sequence, twin, short].forEach((each, i) => {
      const own = concatenate([i < 2 ? shared : first(shared, fp8, 3), parts[i]]);
      assertHolds(backend, there, each, own, fp8, `sequence ${i}`);
    });
  }
  for (const each of [sequence, twin, short]) each.free();
  is(cache.freePages, 12);
  cache.dispose();
});

/** The cache, brought to the backend on which tests compare. */
async function moved(cache: KvCache): Promise<KvCache> {
  await cache.restore(backend, await cache.checkpoint());
  return cache;
}

test('sequences created since become empty, those freed stay so, those truncated have their tokens back', async () => {
  const cache = cacheOf(backend, f32, 20);
  const numbers = random(22);
  const tokens = [10, 5, 7].map((count) => randomTokens(numbers, f32, count));
  const more = randomTokens(numbers, f32, 4);
  const [kept, freed, truncated] = tokens.map((each) => {
    const sequence = cache.createSequence();
    extend(cache, sequence, each, f32);
    return sequence;
  });
  const checkpoint = await cache.checkpoint();
  freed.free();
  truncated.truncate(2);
  const [created, fork, empty] = [cache.createSequence(), kept.fork(), cache.createSequence()];
  extend(cache, created, more, f32);
  extend(cache, kept, more, f32);
  const report = await cache.restore(backend, checkpoint);
  const all = [kept, freed, truncated, created, fork, empty];
  equal(told(report, all), { lost: 4 + 4 + 10, sequences: [[0, 10, 4], [2, 7, 0], [3, 0, 4], [4, 0, 10], [5, 0, 0]] });
  equal(all.map(({ length }) => length), [10, 0, 7, 0, 0, 0]);
  is(cache.freePages, 20 - 3 - 2);
  assertHolds(backend, cache, kept, tokens[0], f32, 'kept');
  assertHolds(backend, cache, truncated, tokens[2], f32, 'truncated');
  for (const each of [created, fork]) extend(cache, each, more, f32);
  assertHolds(backend, cache, created, more, f32, 'created');
  assertHolds(backend, cache, kept, tokens[0], f32, 'kept, after others have taken pages');
  for (const each of all) each.free();
  is(cache.freePages, 20);
  cache.dispose();
});

test('without a checkpoint all sequences are empty, and the report says what is gone', async () => {
  const own = wasmBackend();
  const cache = cacheOf(own, fp8, 8);
  const tokens = randomTokens(random(23), fp8, 6);
  const [one, two] = [cache.createSequence(), cache.createSequence()];
  extend(cache, one, tokens, fp8);
  const three = one.fork();
  extend(cache, three, tokens, fp8);
  own.dispose();
  equal(told(await cache.restore(backend), [one, two, three]), { lost: 18, sequences: [[0, 0, 6], [1, 0, 0], [2, 0, 12]] });
  is(cache.freePages, 8);
  for (const each of [one, two, three]) {
    extend(cache, each, tokens, fp8);
    assertHolds(backend, cache, each, tokens, fp8, 'prefilled again');
  }
  cache.dispose();
});

test('a checkpoint is what was there when it was asked for, whatever goes on while pages are read', async () => {
  const cache = cacheOf(slowReader(), fp8, 8);
  const numbers = random(24);
  const [tokens, other, more] = [6, 6, 9].map((count) => randomTokens(numbers, fp8, count));
  const sequences = [tokens, other].map(() => cache.createSequence());
  for (const [i, each] of [tokens, other].entries()) await decode(cache, sequences[i], each, fp8);
  const reading = cache.checkpoint();
  sequences[1].truncate(0);
  await decode(cache, sequences[0], first(more, fp8, 1), fp8);
  is(cache.freePages, 8 - 4 - 1, 'the page of the last tokens is being read: a copy was written into');
  await decode(cache, sequences[1], more, fp8);
  is(cache.freePages, 0);
  const checkpoint = await reading;
  is(cache.freePages, 8 - 2 - 3);
  await cache.restore(backend, checkpoint);
  sequences.forEach((each, i) => assertHolds(backend, cache, each, [tokens, other][i], fp8, `sequence ${i}`));
  is(cache.freePages, 4);
  cache.dispose();
});

test('a restore while another checkpoint is being read spoils neither the cache nor its pages', async () => {
  const cache = cacheOf(slowReader(), fp8, 8);
  const tokens = randomTokens(random(25), fp8, 6);
  const sequence = cache.createSequence();
  await decode(cache, sequence, tokens, fp8);
  const checkpoint = await cache.checkpoint();
  const reading = refused(cache.checkpoint(), TypeError, /"pages" expected to be in use/);
  await cache.restore(backend, checkpoint);
  await reading;
  assertHolds(backend, cache, sequence, tokens, fp8, 'restored');
  is(cache.freePages, 6);
  sequence.free();
  is(cache.freePages, 8);
  cache.dispose();
});

test('only pages that sequences hold are read, as few pieces as there are, and given back', async () => {
  const read: number[][] = [];
  const cache = cacheOf(backendWith((pages) => ({ export: (at, count) => (read.push([at!, count!]), pages.export(at, count)) })), f32, 10);
  const tokens = randomTokens(random(26), f32, 8);
  const sequences = Array.from({ length: 5 }, () => cache.createSequence());
  for (const each of sequences) await decode(cache, each, tokens, f32);
  sequences[1].free();
  sequences[4].truncate(3);
  const checkpoint = await cache.checkpoint();
  equal(read, [[0, 2], [4, 5], [0, 2], [4, 5]]);
  is(checkpoint.byteLength, 2 * 7 * 4 * 2 * (2 * 8) * 4, '2 layers, 7 pages of 4 tokens, keys and values of 2 heads of 8, f32');
  for (const each of sequences) each.free();
  is((await cache.checkpoint()).byteLength, 0);
  cache.dispose();
});

test('pages are read in pieces of at most 64 MiB', async () => {
  const read: number[][] = [];
  const none = new Float32Array(0);
  // Pages without memory: it is about their numbers only.
  const counting: Backend = {
    ...slowReader(),
    createPages: (layout, count) => ({
      layout, count, byteLength: 0,
      copyPages: () => {}, import: () => {}, exportInto: () => {}, dispose: () => {}, [Symbol.dispose]: () => {},
      export: (at, some) => (read.push([at!, some!]), { keyCache: none, valueCache: none }),
    }),
    append: async () => ({ written: 19 * 64, skipped: 0 }),
  };
  const cache = new KvCache(counting, { layers: [{ headDim: 8 }, {}], kvHeads: 64, headDim: 256, dtype: 'f32', blockSize: 64, capacity: 64 * 20 });
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 64 * 19 }]);
  for (const layer of [0, 1]) await step.append(layer, none, none);
  step.commit();
  await cache.checkpoint();
  // The larger page has keys and values of 64 tokens, 64 heads, 256 elements of 4 bytes: 8 MiB.
  const pieces = [[0, 8], [8, 8], [16, 3]];
  equal(read, [...pieces, ...pieces]);
  cache.dispose();
});

test('neither is begun while a step is open', async () => {
  const cache = cacheOf(backend, fp8, 8);
  const tokens = randomTokens(random(27), fp8, 6);
  const [sequence, other] = [cache.createSequence(), cache.createSequence()];
  extend(cache, sequence, tokens, fp8);
  const checkpoint = await cache.checkpoint();
  const step = cache.begin([{ sequence, tokens: 1 }, { sequence: other, tokens: 1 }]);
  await refused(cache.checkpoint(), Error, /^"checkpoint" expected no open step, got 2 sequences in one: commit or abort it first$/);
  await refused(cache.restore(backend, checkpoint), Error, /^"restore" expected no open step/);
  await refused(cache.restore(backend), Error, /^"restore" expected no open step/);
  step.abort();
  assertHolds(backend, cache, sequence, tokens, fp8, 'as before');
  await cache.restore(backend, checkpoint);
  assertHolds(backend, cache, sequence, tokens, fp8, 'restored');
  cache.dispose();
});

/** All that can be seen of a cache. */
const seen = (cache: KvCache, sequences: readonly Sequence[]) => ({
  freePages: cache.freePages,
  pages: [0, 1].map((layer) => cache.pages(layer)),
  tensors: [0, 1].map((layer) => cache.pages(layer).export()),
  sequences: sequences.map(({ length, blocks }) => [length, ...blocks]),
});

test('a restore that fails leaves the cache as it was, and gives back the pages that it made', async () => {
  const cache = cacheOf(backend, fp8, 8);
  const tokens = randomTokens(random(28), fp8, 6);
  const sequence = cache.createSequence();
  extend(cache, sequence, tokens, fp8);
  const checkpoint = await cache.checkpoint();
  const twin = sequence.fork();
  extend(cache, sequence, tokens, fp8);
  const before = seen(cache, [sequence, twin]);
  let [made, disposed] = [0, 0];
  const counted = { dispose: () => void disposed++ };
  const failing: Record<string, Backend> = {
    'no room': backendWith(() => counted, () => {
      if (++made === 2) throw new RangeError('no room');
    }),
    'no import': backendWith((pages) => {
      made++;
      return { ...counted, import: async (tensors, at) => (made % 2 === 0 ? Promise.reject(new RangeError('no import')) : pages.import(tensors, at)) };
    }),
    'no memory after all': backendWith((pages) => {
      made++;
      return { ...counted, export: async (at, count) => (made % 2 === 0 ? Promise.reject(new RangeError('no memory after all')) : pages.export(at, count)) };
    }),
  };
  for (const [name, each] of Object.entries(failing)) {
    for (const from of [checkpoint, undefined]) {
      if (name === 'no import' && !from) continue;
      [made, disposed] = [0, 0];
      await refused(cache.restore(each, from), RangeError, new RegExp(name));
      is(disposed, name === 'no room' ? 1 : 2);
      equal(seen(cache, [sequence, twin]), before);
    }
  }
  await refused(cache.restore(undefined as unknown as Backend, checkpoint), TypeError, /./);
  // A step that is begun while tensors are written is not pulled from under its owner.
  [made, disposed] = [0, 0];
  const restoring = cache.restore(backendWith((pages) => ({ ...counted, import: async (tensors, at) => later().then(() => pages.import(tensors, at)) })), checkpoint);
  const step = cache.begin([{ sequence, tokens: 1 }]);
  await refused(restoring, Error, /"restore" expected no open step/);
  is(disposed, 2);
  appendToAll(cache, step, first(tokens, fp8, 1));
  step.commit();
  assertHolds(backend, cache, sequence, concatenate([tokens, tokens, first(tokens, fp8, 1)]), fp8, 'as before');
  assertHolds(backend, cache, twin, tokens, fp8, 'the twin');
  cache.dispose();
});

test('pages before a restore are given back, those after it by dispose', async () => {
  const own = wasmBackend();
  const addressOf = (cache: KvCache): number => (cache.pages(0) as WasmPages).address;
  const cache = cacheOf(own, f32, 4);
  const [before, old] = [addressOf(cache), cache.pages(0)];
  await cache.restore(own);
  ok(addressOf(cache) !== before);
  await refused(Promise.resolve().then(() => old.export()), TypeError, /disposed/);
  await cache.restore(own);
  is(addressOf(cache), before);
  const last = cache.pages(0);
  const restoring = cache.restore(backendWith((pages) => ({ dispose: () => void (pages.dispose(), given++) })), await cache.checkpoint());
  let given = 0;
  cache.dispose();
  await refused(Promise.resolve().then(() => last.export()), TypeError, /disposed/);
  await refused(restoring, TypeError, /"cache" expected to be in use, got one that was disposed of/);
  is(given, 2);
  await refused(cache.checkpoint(), TypeError, /"cache" expected to be in use/);
  await refused(cache.restore(own), TypeError, /"cache" expected to be in use/);
});

test('a checkpoint that is not of this cache is refused by what differs', async () => {
  const options: KvCacheOptions = { ...fp8, layers: 2, blockSize: 4, capacity: 32 };
  const cache = new KvCache(backend, options);
  const sequence = cache.createSequence();
  extend(cache, sequence, randomTokens(random(29), fp8, 3), fp8);
  const before = seen(cache, [sequence]);
  const others: [Partial<KvCacheOptions>, RegExp][] = [
    [{ layers: 3 }, /^"checkpoint" expected 2 layers, as the cache has, got 3$/],
    [{ blockSize: 8 }, /^"checkpoint" expected blockSize 4 in layer 0, as the cache has, got 8$/],
    [{ layers: [{}, { kvHeads: 4 }] }, /^"checkpoint" expected kvHeads 2 in layer 1, as the cache has, got 4$/],
    [{ headDim: 16 }, /^"checkpoint" expected headDim 8 in layer 0, as the cache has, got 16$/],
    [{ dtype: { k: 'e4m3fn', v: 'f16' } }, /^"checkpoint" expected v\.dtype e4m3fn in layer 0, as the cache has, got f16$/],
    [{ granularity: { k: 'tensor', v: undefined } }, /^"checkpoint" expected k\.granularity token-head in layer 0, as the cache has, got tensor$/],
    [{ capacity: 36 }, /^"checkpoint" expected a capacity of 32 tokens, as the cache has, got 36$/],
    [{}, /^"checkpoint" expected a checkpoint of this cache, got one of another$/],
  ];
  for (const [change, message] of others) {
    const other = new KvCache(backend, { ...options, ...change });
    await refused(cache.restore(backend, await other.checkpoint()), TypeError, message);
    other.dispose();
  }
  for (const junk of [null, 3, {}, 'checkpoint']) {
    await refused(cache.restore(backend, junk as unknown as Checkpoint), TypeError, /^"checkpoint" expected what cache\.checkpoint\(\) gave, got /);
  }
  equal(seen(cache, [sequence]), before);
  cache.dispose();
});

test('a checkpoint may go through structuredClone, and its NaN keep their bits', async () => {
  const cache = cacheOf(backend, f32, 3);
  const sequence = cache.createSequence();
  // Signalling NaN, which would not survive being moved as numbers.
  const bits = new Float32Array(Uint32Array.from({ length: 5 * 16 }, (_, i) => 0x7f800001 + i).buffer);
  const pages = (layer: number) => cache.pages(layer).export(0, 2) as NhdTensors;
  extend(cache, sequence, { key: bits, value: bits }, f32);
  const before = [0, 1].map(pages);
  const copy = structuredClone(await cache.checkpoint());
  await cache.restore(wasmBackend(), copy);
  [0, 1].forEach((layer) => {
    for (const side of ['keyCache', 'valueCache'] as const) {
      const words = ({ buffer, byteLength }: ArrayBufferView): Uint32Array => new Uint32Array(buffer, 0, byteLength / 4);
      equal(words(pages(layer)[side]), words(before[layer][side]));
    }
  });
  is(sequence.length, 5);
  cache.dispose();
});

/** A sequence, and what it should hold: the numbers of its tokens. */
interface Plain {
  readonly sequence: Sequence;
  tokens: readonly number[];
}

/** A checkpoint, and what the sequences held then. */
interface Saved {
  readonly checkpoint: Checkpoint;
  readonly tokens: ReadonlyMap<Sequence, readonly number[]>;
}

const vocabulary = Array.from({ length: 53 }, (_, i) => randomTokens(random(1000 + i), fp8, 1));
const tokensOf = (numbers: readonly number[]): Tokens => concatenate(numbers.map((token) => vocabulary[token]));

const which = fc.noBias(fc.nat(999));
const just = <T extends string>(value: T) => fc.constant(value);
const command = fc.oneof(
  { weight: 1, arbitrary: fc.record({ do: just('create') }) },
  { weight: 6, arbitrary: fc.record({ do: just('extend'), which, tokens: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 4, arbitrary: fc.record({ do: just('fork'), which }) },
  { weight: 2, arbitrary: fc.record({ do: just('truncate'), which, part: fc.integer({ min: 0, max: 100 }) }) },
  { weight: 1, arbitrary: fc.record({ do: just('free'), which }) },
  { weight: 2, arbitrary: fc.record({ do: just('checkpoint') }) },
  { weight: 2, arbitrary: fc.record({ do: just('restore'), which }) },
);

test('random operations with checkpoints and restores, against a plain model', async () => {
  const PAGES = 12;
  const own = wasmBackend();
  const counts = { restores: 0, regained: 0, emptied: 0, shared: 0 };
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 10, maxLength: 50, size: 'max' }), fc.constantFrom(1, 3, 4), async (commands, blockSize) => {
      const cache = new KvCache(own, { ...fp8, layers: 1, blockSize, capacity: PAGES * blockSize });
      let live: Plain[] = [{ sequence: cache.createSequence(), tokens: [] }];
      const saved: Saved[] = [];
      let next = 0;
      const act: Record<string, (plain: Plain, amount: number) => void> = {
        create: () => void live.push({ sequence: cache.createSequence(), tokens: [] }),
        fork: ({ sequence, tokens }) => void live.push({ sequence: sequence.fork(), tokens }),
        extend(plain, amount) {
          // Enough for a copy too.
          if (cache.freePages < Math.ceil(amount / blockSize) + 1) return;
          const added = Array.from({ length: amount }, () => next++ % 53);
          extend(cache, plain.sequence, tokensOf(added), fp8);
          plain.tokens = [...plain.tokens, ...added];
        },
        truncate(plain, part) {
          plain.tokens = plain.tokens.slice(0, Math.round((plain.tokens.length * part) / 100));
          plain.sequence.truncate(plain.tokens.length);
        },
        free(plain) {
          plain.sequence.free();
          live = live.filter((each) => each !== plain);
        },
      };
      const restore = async (from: Saved | undefined): Promise<void> => {
        const report = await cache.restore(own, from?.checkpoint);
        counts.restores++;
        equal(report.sequences.map(({ sequence }) => live.findIndex((each) => each.sequence === sequence)), live.map((_, i) => i));
        live.forEach((plain, i) => {
          const tokens = from?.tokens.get(plain.sequence) ?? [];
          equal([report.sequences[i].length, report.sequences[i].lost], [tokens.length, Math.max(0, plain.tokens.length - tokens.length)]);
          if (tokens.length > 0) counts.regained++;
          else if (plain.tokens.length > 0) counts.emptied++;
          plain.tokens = tokens;
        });
      };
      const reached = (): Set<number> => new Set(live.flatMap(({ sequence }) => sequence.blocks));
      for (const each of commands) {
        const plain = 'which' in each ? live[each.which % live.length] : live[0];
        if (each.do === 'checkpoint') saved.push({ checkpoint: await cache.checkpoint(), tokens: new Map(live.map(({ sequence, tokens }) => [sequence, tokens])) });
        else if (each.do === 'restore') await restore(saved[each.which % (saved.length + 1)]);
        else if (plain || each.do === 'create') act[each.do](plain, 'tokens' in each ? each.tokens : 'part' in each ? each.part : 0);
        is(cache.freePages, PAGES - reached().size);
        if (each.do !== 'restore') continue;
        if (live.reduce((sum, { sequence }) => sum + sequence.blocks.length, 0) > reached().size) counts.shared++;
        for (const { sequence, tokens } of live) assertHolds(own, cache, sequence, tokensOf(tokens), fp8, 'restored');
      }
      for (const { sequence, tokens } of live) assertHolds(own, cache, sequence, tokensOf(tokens), fp8, 'at the end');
      for (const { sequence } of live) sequence.free();
      is(cache.freePages, PAGES);
      cache.dispose();
    }),
    { seed: 8302, numRuns: 200 },
  );
  // Else the commands would not be about much.
  for (const [what, times] of Object.entries(counts)) ok(times > 50, `${what}: ${times}`);
});

test('the pages of sequences that are restored hold what they held, in every layer', async () => {
  const layers: LayerShape[] = [
    { queryHeads: 4, kvHeads: 2, headDim: 8, dtype: 'f32' },
    { queryHeads: 3, kvHeads: 3, headDim: 24, dtype: { k: 'e5m2', v: 'f16' } },
    { queryHeads: 6, kvHeads: 1, headDim: 16 },
  ];
  const cache = new KvCache(backend, { layers, blockSize: 3, capacity: 30 });
  const sequence = cache.createSequence();
  const step = cache.begin([{ sequence, tokens: 7 }]);
  layers.forEach((shape, layer) => {
    const { key, value } = randomTokens(random(30 + layer), shape, 7);
    step.append(layer, key, value);
  });
  step.commit();
  const q = layers.map(({ queryHeads, headDim }) => random(33).normals(queryHeads * headDim));
  const attention = () => layers.map((shape, layer) => attendTo(backend, cache, layer, sequence, q[layer], shape));
  const expected = attention();
  await cache.restore(wasmBackend(), await cache.checkpoint());
  await moved(cache);
  attention().forEach((result, layer) => assertSameResult(result, expected[layer], `layer ${layer}`));
  cache.dispose();
});

test('pages that were freed while they were read make room in their order: the last of a prefix first', async () => {
  const cache = new KvCache(backend, { kvHeads: 1, headDim: 8, layers: 1, blockSize: 2, capacity: 8, prefix: { model: 'm' } });
  const grow = (sequence: Sequence, ids: readonly number[]): void => {
    const step = cache.begin([{ sequence, tokens: ids }]);
    const x = new Float32Array(8 * ids.length);
    step.append(0, x, x);
    step.commit();
  };
  const ids = [1, 2, 3, 4, 5, 6];
  const sequence = cache.createSequence();
  grow(sequence, ids);
  const reading = cache.checkpoint();
  sequence.free();
  await reading;
  // Two pages: the one that was free, and one of those three.
  grow(cache.createSequence(), [7, 8, 9]);
  is(cache.matchPrefixSync([...ids, 0]).length, 4);
  cache.dispose();
});
