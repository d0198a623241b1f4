import { equal, is, throws } from 'uvu/assert';
import { KvCache, OutOfPagesError, wasmBackend, type KvCacheOptions, type Sequence } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { builds } from '../builds.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { assertRing, mila, unbounded } from './rings.js';

const test = suite('cache, rings');
const backend = wasmBackend();
const places: readonly Partial<KvCacheOptions>[] = [{ blockSize: 1 }, { blockSize: 4 }, { blockSize: 16 }, { blockSize: 64 }, { layout: 'contiguous' }];
const nameOf = ({ blockSize, layout }: Partial<KvCacheOptions>): string => layout ?? `pages of ${blockSize}`;

const cacheOf = (options: Partial<KvCacheOptions> = {}): KvCache => new KvCache(backend, { ...mila, ...options } as KvCacheOptions);

/** Takes a sequence further, with whatever keys. */
function grow(cache: KvCache, sequence: Sequence, ...chunks: readonly number[]): void {
  for (const tokens of chunks) {
    const step = cache.begin([{ sequence, tokens }]);
    const x = random(sequence.length).normals(tokens * mila.kvHeads * mila.headDim);
    for (let layer = 0; layer < cache.layers; layer++) step.append(layer, x, x);
    step.commit();
  }
}

test('keeps what a window and a chunk need, and never more than the context', () => {
  is(cacheOf().tokensKept(0), 23);
  is(cacheOf({ chunk: 1 }).tokensKept(0), 8);
  is(cacheOf({ context: 20 }).tokensKept(0), 20);
  is(cacheOf({ slidingWindow: 60 }).tokensKept(0), 64);
  is(cacheOf({ sinkTokens: 4 }).tokensKept(0), 27);
  is(cacheOf({ sinkTokens: 4, context: 20 }).tokensKept(0), 20);
});

test('takes as many bytes as those tokens do', () => {
  // Keys and values of two layers and two heads: 64 codes and an f32 scale for each token, runs of scales padded to 16 bytes.
  const bytes = (pages: number, tokens: number): number => 2 * 2 * 2 * pages * (64 * tokens + 16 * Math.ceil(tokens / 4));
  is(cacheOf({ layout: 'contiguous' }).memory.bytes, bytes(1, 23));
  is(cacheOf({ layout: 'contiguous', sequences: 3 }).memory.bytes, bytes(3, 23));
  is(cacheOf({ blockSize: 1 }).memory.bytes, bytes(23, 1));
  is(cacheOf({ blockSize: 4 }).memory.bytes, bytes(6, 4));
  is(cacheOf({ blockSize: 16 }).memory.bytes, bytes(2, 16));
  is(cacheOf({ blockSize: 16, sinkTokens: 17, sequences: 2 }).memory.bytes, bytes(2 * (2 + 2), 16));
  is(cacheOf({ blockSize: 16 }).memory.bytesPerToken, 0);
});

test('refuses what is no window, and what would hide what it shows', () => {
  for (const slidingWindow of [0, -1, 1.5, NaN]) throws(() => cacheOf({ slidingWindow }), /"slidingWindow" expected an integer from 1/);
  throws(() => cacheOf({ chunk: undefined }), /"chunk" expected the most new tokens of a step, which "slidingWindow" has to know, got undefined/);
  throws(() => cacheOf({ chunk: 0 }), /"chunk" expected an integer from 1/);
  throws(() => cacheOf({ windowLeft: 7 }), /"windowLeft" expected to be absent with "slidingWindow"/);
  throws(() => cacheOf({ causal: false }), /"causal" expected to be absent with "slidingWindow"/);
  throws(() => cacheOf({ slidingWindow: undefined, sinkTokens: 4 }), /"sinkTokens" expected to be absent without "slidingWindow"/);
  throws(() => cacheOf({ sinkTokens: 4, layout: 'contiguous' }), /"sinkTokens" expected to be absent with layout contiguous/);
  throws(() => cacheOf({ sinkTokens: 64 }), /"sinkTokens" expected an integer from 0 to 63/);
  throws(() => cacheOf().tokensKept(2), /"layer" expected/);
});

test('a call that would look beyond the window, where other keys lie by now, is refused', async () => {
  const cache = cacheOf();
  const sequence = cache.createSequence();
  grow(cache, sequence, 16, 16);
  const step = cache.begin([{ sequence, tokens: 1 }]);
  const x = random(5).normals(mila.kvHeads * mila.headDim);
  step.append(0, x, x);
  const q = random(6).normals(mila.queryHeads * mila.headDim);
  for (const [name, value] of [['windowLeft', -1], ['windowLeft', 20], ['windowRight', 0], ['causal', false]] as const) {
    throws(() => step.attendSync(0, q, { [name]: value }), new RegExp(`"${name}" expected to be absent with "slidingWindow"`));
  }
  step.attendSync(0, q, { windowLeft: undefined, softcap: 3 });
  step.abort();
  cache.dispose();
});

for (const place of places) {
  test(`a cache of all tokens is cut anywhere, a ring only as far as it goes: ${nameOf(place)}`, () => {
    const all = cacheOf({ ...place, slidingWindow: undefined, windowLeft: 7 });
    const whole = all.createSequence();
    grow(all, whole, 16, 4);
    throws(() => whole.truncate(21), /"length" expected an integer from 0 to 20/);
    whole.truncate(20);
    whole.truncate(5);
    throws(() => whole.truncate(6), /"length" expected an integer from 0 to 5/);

    const ring = cacheOf(place);
    const sequence = ring.createSequence();
    grow(ring, sequence, 16, 16, 8);
    throws(() => sequence.truncate(24), /"length" expected at least 25/);
    is(sequence.length, 40);
    sequence.truncate(40);
    sequence.truncate(25);
    throws(() => sequence.truncate(24), /"length" expected at least 25/);
    // What was overwritten before is gone, also where the sequence is shorter now.
    grow(ring, sequence, 5);
    throws(() => sequence.truncate(24), /"length" expected at least 25/);
    sequence.truncate(25);
    sequence.free();
    is(ring.freePages, ring.groups[0].pageCount);
  });
}

test('a ring that has overwritten nothing is cut anywhere', () => {
  const cache = cacheOf();
  const sequence = cache.createSequence();
  grow(cache, sequence, 16, 7);
  sequence.truncate(0);
  is(cache.freePages, 2);
});

test('a step has as many tokens as the chunk, a sequence as the context', () => {
  const cache = cacheOf();
  const sequence = cache.createSequence();
  throws(() => cache.begin([{ sequence, tokens: 17 }]), /"entries\[0\].tokens" expected at most 16, the cache's "chunk", got 17/);
  grow(cache, sequence, 16, 16, 16, 15);
  throws(() => cache.begin([{ sequence, tokens: 2 }]), /"entries\[0\].tokens" expected at most 1 more, as the cache's "context" is 64, got 2/);
  grow(cache, sequence, 1);
});

for (const simd of builds) {
  const own = wasmBackend({ simd });
  for (const place of places) {
    test(`answers as a cache of all tokens does, bit for bit: ${nameOf(place)}, ${simd}`, async () => {
      const [ring, all] = [await assertRing(own, place), await unbounded(own)];
      for (const [i, { out, lse }] of ring.entries()) {
        assertSameBits(out, all[i].out, `out ${i}`);
        assertSameBits(lse, all[i].lse, `lse ${i}`);
      }
    });
  }
}

for (const sinkTokens of [1, 4, 16, 20]) {
  for (const blockSize of [1, 4, 16]) {
    test(`the first ${sinkTokens} tokens stay: pages of ${blockSize}`, async () => {
      await assertRing(backend, { sinkTokens, blockSize });
    });
  }
}

test('threads give the same bits', async () => {
  const threaded = wasmBackend({ threads: 2 });
  for (const options of [{}, { sinkTokens: 4 }]) {
    const [together, alone] = [await assertRing(threaded, options), await assertRing(backend, options)];
    for (const [i, { out }] of together.entries()) assertSameBits(out, alone[i].out, `out ${i}`);
  }
  threaded.dispose();
});

/** What a sequence attends to with its next token; the step is aborted. */
function answer(cache: KvCache, sequence: Sequence): Float32Array {
  using step = cache.begin([{ sequence, tokens: 1 }]);
  const x = random(9).normals(mila.kvHeads * mila.headDim);
  step.append(0, x, x);
  return step.attendSync(0, random(10).normals(mila.queryHeads * mila.headDim)).out.slice();
}

test('forks overwrite pages of their own', () => {
  const cache = cacheOf({ blockSize: 4, sequences: 2 });
  const sequence = cache.createSequence();
  grow(cache, sequence, 16, 16, 8);
  const before = answer(cache, sequence);
  const twin = sequence.fork();
  is(cache.freePages, 6);
  grow(cache, twin, 16, 8);
  assertSameBits(answer(cache, sequence), before, 'the first');
  is(cache.freePages, 0);
  throws(() => grow(cache, sequence.fork(), 1), (error: unknown) => error instanceof OutOfPagesError && error.message.endsWith('give the cache more "sequences"'));
  twin.free();
  assertSameBits(answer(cache, sequence), before, 'the first, alone');
});

test('a step that comes round needs pages for what others hold there, each once', () => {
  const cache = cacheOf({ blockSize: 4 });
  const sequence = cache.createSequence();
  grow(cache, sequence, 16, 4);
  const twin = sequence.fork();
  // One new page, and one in place of the first.
  throws(() => cache.begin([{ sequence, tokens: 8 }]), (error: unknown) => error instanceof OutOfPagesError && error.need === 2 && error.have === 1);
  twin.free();
  grow(cache, sequence, 8);

  const narrow = cacheOf({ blockSize: 4, slidingWindow: 1, chunk: 8, sinkTokens: 4, sequences: 2 });
  const first = narrow.createSequence();
  grow(narrow, first, 8, 6);
  const second = first.fork();
  grow(narrow, narrow.createSequence(), 1);
  is(narrow.freePages, 2);
  // Eight tokens begin in the middle of one of the ring's two pages, and end there.
  grow(narrow, second, 8);
  is(narrow.freePages, 0);
});

test('an aborted step leaves what rows see, and takes from what can be cut', () => {
  const cache = cacheOf();
  const sequence = cache.createSequence();
  grow(cache, sequence, 16, 16, 8);
  const before = answer(cache, sequence);
  const step = cache.begin([{ sequence, tokens: 16 }]);
  step.abort();
  throws(() => sequence.truncate(25), /"length" expected at least 26/);
  const written = cache.begin([{ sequence, tokens: 16 }]);
  const x = new Float32Array(16 * mila.kvHeads * mila.headDim).fill(3);
  for (let layer = 0; layer < 2; layer++) written.append(layer, x, x);
  written.abort();
  assertSameBits(answer(cache, sequence), before, 'after the abort');
  throws(() => sequence.truncate(39), /"length" expected at least 41/);
  is(sequence.length, 40);
});

test('layers that keep all tokens, and rings of several windows, each have pages of their own', () => {
  const windows = [undefined, 8, 8, 4, undefined];
  const cache = new KvCache(backend, { ...mila, slidingWindow: undefined, layers: windows.map((slidingWindow) => ({ slidingWindow })), blockSize: 4 });
  equal(cache.groups.map(({ kind, pageCount }) => [kind, pageCount]), [['all', 16], ['ring', 6], ['ring', 5]]);
  equal(windows.map((_, layer) => cache.tokensKept(layer)), [64, 23, 23, 19, 64]);
  const sequence = cache.createSequence();
  grow(cache, sequence, 16, 16, 8);
  equal(cache.groups.map(({ pool }) => pool.free), [6, 0, 0]);
  is(sequence.blocks.length, 10);
  // The narrower ring has the fewer tokens to go back to.
  throws(() => sequence.truncate(24), /"length" expected at least 25/);
  sequence.truncate(25);
  equal(cache.groups.map(({ pool }) => pool.free), [9, 0, 0]);
  sequence.free();
  equal(cache.groups.map(({ pool }) => pool.free), [16, 6, 5]);
});

test('a checkpoint brings a ring back', async () => {
  const cache = cacheOf({ blockSize: 4, sinkTokens: 2 });
  const sequence = cache.createSequence();
  grow(cache, sequence, 16, 16, 3);
  const before = answer(cache, sequence);
  const checkpoint = await cache.checkpoint();
  grow(cache, sequence, 16);
  const { lost } = await cache.restore(wasmBackend(), checkpoint);
  is(lost, 16);
  assertSameBits(answer(cache, sequence), before, 'restored');
});
