/** Snapshots that are not what they should be: refused, and the cache is as it was. */
import { equal, is, match, ok } from 'uvu/assert';
import { readSnapshot, writeSnapshot, type SnapshotLayerTensors } from '../../src/files/snapshot.js';
import type { SnapshotHead } from '../../src/files/snapshot-head.js';
import { FormatError, loadSnapshot, OutOfPagesError, wasmBackend, type ByteSource, type KvCache, type KvCacheOptions, type NhdTensors, type Sequence } from '../../src/index.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { advance, assertSameContents, assertSameResults, cacheOf, live, load, save, structures } from './snapshots.js';

const test = suite('cache, snapshots that are refused');
const backend = wasmBackend();

interface Target {
  readonly cache: KvCache;
  readonly sequences: readonly Sequence[];
}

/** A cache in the middle of its life. */
async function targetOf(options: Partial<KvCacheOptions>): Promise<Target> {
  const cache = cacheOf(backend, options);
  return { cache, sequences: await live(cache) };
}

/** All bytes of pages that sequences hold, and all else that can be seen. */
async function seen({ cache, sequences }: Target): Promise<object> {
  const { groups, pages, plans } = cache.parts;
  const held = groups.map((_, g) => new Set(sequences.flatMap(({ state }) => state.held[g].pages)));
  const contents: NhdTensors[] = [];
  for (const [at, store] of pages.entries()) for (const page of held[plans.stores[at].group]) contents.push(await store.export(page, 1));
  return { contents, free: groups.map(({ pool }) => pool.free), live: [...cache.live].map(({ id }) => id), sequences: sequences.map(({ state }) => state) };
}

async function assertRefused(target: Target, source: ByteSource, kind: (new (...args: never[]) => Error) | undefined, message: RegExp, before?: object): Promise<Error> {
  const expected = before ?? (await seen(target));
  const error = await load(target.cache, source).then(() => undefined, (thrown: unknown) => thrown);
  ok(error instanceof (kind ?? Error), `${String(message)}: ${String(error)}`);
  match(error.message, message);
  ok(error.message.length < 1000, error.message);
  equal(await seen(target), expected, error.message);
  return error;
}

/** The cache goes on as one that has never heard of a snapshot. */
async function assertGoesOn({ cache, sequences }: Target, options: Partial<KvCacheOptions>): Promise<void> {
  const other = await targetOf(options);
  const entries = (all: readonly Sequence[]): (readonly [Sequence, number])[] => all.map((each) => [each, 3]);
  assertSameResults(await advance(cache, entries(sequences), 50), await advance(other.cache, entries(other.sequences), 50), 'goes on');
  await assertSameContents(other.cache, other.sequences, cache, sequences, 'goes on');
  other.cache.dispose();
}

const simple: Partial<KvCacheOptions> = { layers: 1, blockSize: 2 };
const smallest = await (async () => {
  const cache = cacheOf(backend, simple);
  const sequence = cache.createSequence();
  await advance(cache, [[sequence, 3]], 1);
  return save(cache, [sequence]);
})();

test('every cut of a file is refused', async () => {
  const target = await targetOf(simple);
  const before = await seen(target);
  for (let length = 0; length < smallest.length; length++) await assertRefused(target, smallest.slice(0, length), FormatError, /^file, byte \d+: /, before);
  await assertRefused(target, new Uint8Array([...smallest, 0]), FormatError, /the file goes on after its last tensor/, before);
  await assertGoesOn(target, simple);
}, { seconds: 120 });

for (const [name, options] of Object.entries({ simple, ...structures })) {
  test(`flipped bits are refused: ${name}`, async () => {
    const roomy = { ...options, sequences: options.sequences && 16 };
    const target = await targetOf(roomy);
    const bytes = name === 'simple' ? smallest : await save(target.cache);
    const before = await seen(target);
    const numbers = random(3);
    for (let i = 0; i < 600; i++) {
      const flipped = bytes.slice();
      const bit = numbers.integer(bytes.length * 8);
      flipped[bit >> 3] ^= 1 << (bit & 7);
      await assertRefused(target, flipped, undefined, /./, before);
    }
    const loaded = await load(target.cache, bytes);
    is(loaded.length, name === 'simple' ? 1 : 4);
    for (const each of loaded) each.free();
    equal(await seen(target), before);
    await assertGoesOn(target, roomy);
  }, { seconds: 120 });
}

test('a source that fails, a backend that fails, and what is no file', async () => {
  const target = await targetOf(simple);
  for (const length of [0, 100, smallest.length - 100]) {
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield smallest.subarray(0, length);
      throw new RangeError('the disk is gone');
    }
    await assertRefused(target, failing(), RangeError, /^the disk is gone$/);
  }
  await assertRefused(target, undefined as never, TypeError, /^"source" expected a Uint8Array, .*, got undefined$/);
  await assertRefused(target, new TextEncoder().encode('a text that is rather long for a header'), FormatError, /./);
  const pages = target.cache.pages(0);
  const own = pages.import.bind(pages);
  pages.import = () => Promise.reject(new RangeError('no import')) as never;
  await assertRefused(target, smallest, RangeError, /^no import$/);
  pages.import = own;
  await assertGoesOn(target, simple);
});

/** A cache, and what another must be unlike it in. */
const unlike: [name: string, from: Partial<KvCacheOptions>, into: Partial<KvCacheOptions>, message: RegExp][] = [
  ['layers', {}, { layers: 3 }, /^"snapshot" expected 3 layers, as the cache has, got 2$/],
  ['kvHeads', {}, { kvHeads: 1 }, /^"snapshot" expected kvHeads 1 in layer 0, as the cache has, got 2$/],
  ['headDim', {}, { layers: [{}, { headDim: 16 }] }, /^"snapshot" expected headDim 16 in layer 1, as the cache has, got 8$/],
  ['format', {}, { dtype: { k: 'e4m3fn', v: 'e5m2' } }, /expected v.format e5m2 in layer 0, as the cache has, got e4m3fn$/],
  ['an unquantized layer', {}, { skipLayers: [1] }, /expected k.format f32 in layer 1, as the cache has, got e4m3fn$/],
  ['granularity', {}, { granularity: 'head' }, /expected k.granularity head in layer 0, as the cache has, got token-head$/],
  ['groupSize', { granularity: 'group', groupSize: 8, headDim: 8 }, {}, /expected k.granularity token-head in layer 0/],
  ['recipe', {}, { recipe: { k: 'amax', v: 'mila-activation' } }, /expected v.recipe.name mila-activation in layer 0, as the cache has, got amax$/],
  ['scalePrecision', {}, { scalePrecision: 'f16' }, /expected k.recipe.scalePrecision f16 in layer 0, as the cache has, got none$/],
  ['a scale', { granularity: 'tensor', scale: 0.5 }, { granularity: 'tensor', scale: { k: 0.5, v: 0.5000001 } }, /expected the scale 0.50000011\d* at 0 of layers\[0\].v, as the cache has, got 0.5$/],
  ['a scale that is not stated', { granularity: 'tensor' }, { granularity: 'tensor', scale: 2 }, /expected the scale 2 at 0 of layers\[0\].k, as the cache has, got 1$/],
  ['scales', { granularity: 'head', scale: 2 }, { granularity: 'head', scale: Float32Array.of(2, 3) }, /expected the scale 3 at 1 of layers\[0\].k, as the cache has, got 2$/],
  ['a window', structures.rings, { ...structures.rings, slidingWindow: 7 }, /expected window 7 in layer 0, as the cache has, got 6$/],
  ['a window or none', structures.rings, {}, /expected window none in layer 0, as the cache has, got 6$/],
  ['sinkTokens', structures['rings with sinks'], { ...structures['rings with sinks'], sinkTokens: 0 }, /expected sinkTokens 0 in layer 0, as the cache has, got 5$/],
  ['a residual or none', structures['residual, by pages'], {}, /expected residual.tokens none in layer 0, as the cache has, got 7$/],
  ['a residual\'s length', structures['residual, by pages'], { ...structures['residual, by pages'], residual: 8 }, /expected residual.tokens 8 in layer 0, as the cache has, got 7$/],
  ['a residual\'s dtype', structures['residual, by pages'], { ...structures['residual, by pages'], residualDtype: 'f16' }, /expected residual.dtype f16 in layer 0, as the cache has, got f32$/],
  ['a residual\'s rule', structures['residual, by pages'], { ...structures['residual, by pages'], residualRule: 'huggingface', chunk: 13 }, /expected residual.rule huggingface in layer 0, as the cache has, got page$/],
];

for (const [name, from, into, message] of unlike) {
  test(`a snapshot of other layers is refused: ${name}`, async () => {
    const source = await targetOf(from);
    const cache = cacheOf(backend, into);
    await assertRefused({ cache, sequences: [cache.createSequence()] }, await save(source.cache), TypeError, message);
  });
}

test('scales that are stated in another way are the same', async () => {
  const source = await targetOf({ granularity: 'head', scale: Float32Array.of(1, 1) });
  for (const scale of [undefined, 1, Float32Array.of(1, 1)]) is((await load(cacheOf(backend, { granularity: 'head', scale }), await save(source.cache))).length, 4);
});

test('what there is no room for is refused', async () => {
  const { cache, sequences } = await targetOf({});
  const bytes = await save(cache);
  const used = cache.groups[0].pageCount - cache.freePages;
  const room = async (options: Partial<KvCacheOptions>, tokens = 0): Promise<Target> => {
    const other = cacheOf(backend, options);
    const own = other.createSequence();
    if (tokens > 0) await advance(other, [[own, tokens]], 1);
    return { cache: other, sequences: [own] };
  };
  const least = await room({ capacity: 4 * used });
  equal((await load(least.cache, bytes)).map(({ length }) => length), sequences.map(({ length }) => length));
  const full = await room({ capacity: 4 * used }, 1);
  const error = await assertRefused(full, bytes, OutOfPagesError, /^the snapshot needs \d+ pages, \d+ are free: free or truncate sequences/) as OutOfPagesError;
  equal([error.need, error.have], [used, used - 1]);
  await assertRefused(await room({ capacity: 12 }), bytes, OutOfPagesError, /^the snapshot needs \d+ pages, 3 are free/);
  await assertRefused(await room({ context: 20 }), bytes, RangeError, /^"snapshot" expected sequences of at most 20 tokens, the cache's "context", got 22$/);
  await assertRefused(await room({ layout: 'contiguous', blockSize: undefined, capacity: 20, sequences: 9 }), bytes, OutOfPagesError, /^the snapshot needs 2 pages, 1 are free: a sequence has one, of 20 tokens/);
  await assertRefused(await room({ layout: 'contiguous', blockSize: undefined, sequences: 1 }), bytes, OutOfPagesError, /^the snapshot needs 2 pages, 1 are free/);
});

/** The same file with something else in its head, and right checksums. */
async function changed(bytes: Uint8Array, change: (head: SnapshotHead) => void): Promise<Uint8Array> {
  const layers: SnapshotLayerTensors[] = [];
  let head: SnapshotHead | undefined;
  await readSnapshot(bytes, 'file', { head: (read) => void (head = read), layer: (_, tensors) => void layers.push(tensors) });
  change(head!);
  const chunks: Uint8Array[] = [];
  for await (const chunk of writeSnapshot(head!, (index) => layers[index])) chunks.push(chunk.slice());
  return new Uint8Array(Buffer.concat(chunks));
}

type Mutable<T> = T extends object ? { -readonly [K in keyof T]: Mutable<T[K]> } : T;

test('what no sequence can have come to hold is refused, whatever its checksums say', async () => {
  const refusals: [structure: string, (sequence: Mutable<SnapshotHead>['sequences'][number]) => void, RegExp][] = [
    ['all tokens', (sequence) => sequence.length++, /expected sinks, floor and end of 0, 0 and 23 in sequences\[0\]\.held\[0\], got 0, 0 and 22$/],
    ['all tokens', ({ held: [held] }) => Object.assign(held, { floor: 1, runs: [[0, 21]] }), /of 0, 0 and 22 in sequences\[0\]\.held\[0\], got 0, 1 and 22$/],
    ['rings', ({ held: [held] }) => Object.assign(held, { floor: 18, runs: [[0, 4]] }), /of 0, 17 and 22 in sequences\[0\]\.held\[0\], got 0, 18 and 22$/],
    ['rings with sinks', ({ held: [held] }) => Object.assign(held, { sinks: 3, runs: [[0, 3 + held.end - held.floor]] }), /of 4, 17 and 22 in sequences\[0\]\.held\[0\], got 3, 4 and 22$/],
    ['residual, by pages', ({ held: [, residual] }) => Object.assign(residual, { floor: 13, runs: [[0, 9]] }), /of 0, 0 and 13 in sequences\[0\]\.held\[0\], got 0, 0 and 12$/],
    ['residual, by pages', ({ held: [, residual] }) => Object.assign(residual, { end: 21, runs: [[0, 9]] }), /of 0, 12 and 22 in sequences\[0\]\.held\[1\], got 0, 12 and 21$/],
  ];
  for (const [structure, change, message] of refusals) {
    const target = await targetOf(structures[structure]);
    const bytes = await save(target.cache, [target.sequences[0]]);
    equal(await changed(bytes, () => undefined), bytes);
    await assertRefused(target, await changed(bytes, ({ sequences: [sequence] }) => change(sequence as Mutable<typeof sequence>)), TypeError, message);
  }
});

test('layers that keep the same tokens must do so in the snapshot', async () => {
  const target = await targetOf({});
  const bytes = await changed(await save(target.cache, [target.sequences[0]]), (head) => {
    const { groups, layers, sequences: [{ held }] } = head as Mutable<SnapshotHead>;
    groups.push(groups[0]);
    held.push(held[0]);
    layers[1].group = 1;
  });
  await assertRefused(target, bytes, TypeError, /^"snapshot" expected layer 1 to keep the tokens of group 0, as those before it, got group 1$/);
});

test('the name that the caller gives it is that in errors', async () => {
  const cache = cacheOf(backend, simple);
  const nothing = new Uint8Array(0);
  match(String(await loadSnapshot(cache, nothing, { name: 'chat.safetensors' }).catch((error: unknown) => error)), /^FormatError: chat.safetensors, byte 0: /);
  match(String(await loadSnapshot(cache, nothing).catch((error: unknown) => error)), /^FormatError: snapshot, byte 0: /);
});
