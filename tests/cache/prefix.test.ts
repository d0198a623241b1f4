import { equal, is, ok, throws } from 'uvu/assert';
import { wasmBackend, type KvCache, type KvCacheOptions, type PageStore, type PrefixOptions, type Sequence } from '../../src/index.js';
import { BlockPool } from '../../src/cache/blocks.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { assertHoldsIds, computed, feed, idsFrom, memoryStore, prefixCache, prompted, tokensFound } from './prompts.js';
import { appendToAll } from './tokens.js';

const test = suite('prefixes');
const backend = wasmBackend();
const cacheOf = (pages: number, options?: Partial<KvCacheOptions>): KvCache => prefixCache(backend, pages, options);

async function refused(promise: Promise<unknown>, kind: new (...args: never[]) => Error, message: RegExp): Promise<void> {
  const error = await promise.then(() => undefined, (reason: unknown) => reason as Error);
  ok(error instanceof kind && message.test(error.message), `expected ${kind.name} ${String(message)}, got ${String(error)}`);
}

test('whole pages are found, as far as the tokens are the same, and never all tokens', () => {
  const cache = cacheOf(8);
  const ids = idsFrom(0, 11);
  prompted(cache, ids).free();
  const found = (tokens: ArrayLike<number>): number => tokensFound(cache, tokens as number[]);
  for (const [count, length] of [[0, 0], [1, 0], [4, 0], [5, 4], [8, 4], [9, 8], [11, 8]]) is(found(ids.slice(0, count)), length, `${count} tokens`);
  is(found(idsFrom(0, 40)), 8, 'more than were there');
  is(found(Uint32Array.from(ids)), 8);
  const changed = (at: number): number[] => ids.map((id, i) => (i === at ? 99 : id));
  is(found(changed(8)), 8);
  is(found(changed(7)), 4);
  is(found(changed(4)), 4);
  is(found(changed(3)), 0);
  is(found(changed(0)), 0);
  is(found(ids.slice(4)), 0, 'the second page without the first');
  cache.dispose();
});

test('what is found is what was computed, and goes on as that would', () => {
  const cache = cacheOf(12);
  const ids = [...idsFrom(0, 10), 0xffffffff];
  const first = prompted(cache, ids);
  const { sequence, length } = cache.matchPrefixSync(ids);
  is(length, 8);
  is(sequence.length, 8);
  equal(sequence.blocks, first.blocks.slice(0, 2), 'the same pages');
  feed(cache, sequence, [...ids.slice(8), 70, 71, 72, 73, 74]);
  assertHoldsIds(backend, cache, sequence, [...ids, 70, 71, 72, 73, 74], 'the match');
  assertHoldsIds(backend, cache, first, ids, 'the first');
  is(tokensFound(cache, [...ids, 70, 71, 72, 73, 74]), 12, 'what came after the match is found in turn');
  cache.dispose();
});

test('pages without an owner are free, and what was not asked for longest goes first, ends before beginnings', () => {
  const cache = cacheOf(7);
  const [a, b, c] = [0, 100, 200].map((first) => idsFrom(first, 13));
  prompted(cache, a.slice(0, 12)).free();
  prompted(cache, b.slice(0, 12)).free();
  is(cache.freePages, 7);
  is(cache.memory.bytesInUse, 0);
  is(tokensFound(cache, a), 12, 'now b is the one that was not asked for longest');
  const other = prompted(cache, c.slice(0, 4));
  is(cache.prefixCounters.evictions, 0, 'there was a page that held nothing');
  feed(cache, other, c.slice(4, 8));
  is(cache.prefixCounters.evictions, 1);
  is(tokensFound(cache, b), 8, 'the end of b went');
  is(tokensFound(cache, a), 12);
  // b was asked for, and then a: the other end of b goes again.
  feed(cache, other, c.slice(8, 12));
  is(tokensFound(cache, b), 4);
  is(tokensFound(cache, a), 12);
  assertHoldsIds(backend, cache, other, c.slice(0, 12), 'what took the room');
  throws(() => cache.begin([{ sequence: other, tokens: 17 }]), /the step needs 5 pages, 4 are free/);
  feed(cache, other, idsFrom(300, 16));
  is(cache.freePages, 0);
  is(tokensFound(cache, a), 0);
  is(tokensFound(cache, b), 0);
  is(cache.prefixCounters.evictions, 6);
  cache.dispose();
});

test('pages that are in use are not evicted', () => {
  const cache = cacheOf(4);
  const ids = idsFrom(0, 9);
  prompted(cache, ids.slice(0, 8)).free();
  const { sequence } = cache.matchPrefixSync(ids);
  const other = prompted(cache, idsFrom(100, 8));
  throws(() => cache.begin([{ sequence: other, tokens: 1 }]), /the step needs 1 pages, 0 are free/);
  assertHoldsIds(backend, cache, sequence, ids.slice(0, 8), 'the match');
  cache.dispose();
});

test('trees of forks share their pages with what matches them', () => {
  const cache = cacheOf(16);
  const trunk = idsFrom(0, 10);
  const root = prompted(cache, trunk);
  const branches = [100, 200, 300].map((first): { sequence: Sequence; ids: number[] } => {
    const sequence = root.fork();
    const own = idsFrom(first, 7);
    feed(cache, sequence, own);
    return { sequence, ids: [...trunk, ...own] };
  });
  is(16 - cache.freePages, 3 + 3 * 3, 'two full pages of all, the page in which they part, and two more of each branch');
  for (const { sequence, ids } of branches) {
    const match = cache.matchPrefixSync(ids);
    is(match.length, 16);
    equal(match.sequence.blocks, sequence.blocks.slice(0, 4));
    match.sequence.free();
  }
  root.free();
  for (const { sequence } of branches) sequence.free();
  is(cache.freePages, 16);
  const [last] = branches.slice(-1);
  const matches = branches.map(({ ids }) => cache.matchPrefixSync([...ids, 5]).sequence);
  is(16 - cache.freePages, 2 + 3 * 2);
  branches.forEach(({ ids }, i) => assertHoldsIds(backend, cache, matches[i], ids.slice(0, 16), `branch ${i}`));
  is(tokensFound(cache, last.ids), 16);
  cache.dispose();
});

test('a page that is cut and written again loses its key, and no other does', () => {
  const cache = cacheOf(12);
  const ids = idsFrom(0, 13);
  const sequence = prompted(cache, ids.slice(0, 12));
  sequence.truncate(6);
  is(tokensFound(cache, ids), 12, 'what was cut is still there');
  feed(cache, sequence, [50]);
  is(tokensFound(cache, ids), 4, 'the second page holds something else');
  feed(cache, sequence, [51]);
  is(tokensFound(cache, [...ids.slice(0, 6), 50, 51, 0]), 8, 'which is found by its own tokens');
  assertHoldsIds(backend, cache, sequence, [...ids.slice(0, 6), 50, 51], 'after the cut');

  const other = prompted(cache, idsFrom(200, 8));
  const match = cache.matchPrefixSync(idsFrom(200, 9));
  other.truncate(5);
  feed(cache, other, [60, 61, 62]);
  is(tokensFound(cache, idsFrom(200, 9)), 8, 'of a page that somebody else holds, a copy is written');
  assertHoldsIds(backend, cache, match.sequence, idsFrom(200, 8), 'who held it');
  assertHoldsIds(backend, cache, other, [...idsFrom(200, 5), 60, 61, 62], 'who wrote');
  is(tokensFound(cache, [...idsFrom(200, 5), 60, 61, 62, 0]), 8);
  cache.dispose();
});

test('what was cut and computed once more is found, whichever page it is in', () => {
  const cache = cacheOf(3);
  const ids = idsFrom(0, 9);
  const sequence = prompted(cache, ids.slice(0, 8));
  for (let round = 0; round < 5; round++) {
    sequence.truncate(4);
    feed(cache, sequence, ids.slice(4, 8));
    is(tokensFound(cache, ids), 8, `round ${round}`);
  }
  sequence.free();
  is(cache.freePages, 3);
  cache.dispose();
});

test('what is computed once more takes the place of pages that nobody holds', () => {
  const cache = cacheOf(4);
  const ids = idsFrom(0, 9);
  prompted(cache, ids.slice(0, 8)).free();
  const again = prompted(cache, ids.slice(0, 8));
  const match = cache.matchPrefixSync(ids).sequence;
  equal(match.blocks, again.blocks);
  match.free();
  const other = prompted(cache, idsFrom(100, 8));
  is(cache.prefixCounters.evictions, 0);
  is(tokensFound(cache, ids), 8, 'as long as they are in use');
  assertHoldsIds(backend, cache, again, ids.slice(0, 8), 'the second');
  assertHoldsIds(backend, cache, other, idsFrom(100, 8), 'the other');
  again.free();
  is(cache.freePages, 2);
  is(tokensFound(cache, ids), 8);
  cache.dispose();
});

test('a page that two names are stated for has one, and loses that when it is taken', () => {
  const pool = new BlockPool(1);
  const page = pool.take();
  pool.keep(page, 'this');
  pool.keep(page, 'that');
  is(pool.find('this'), page);
  is(pool.find('that'), undefined);
  pool.release(page);
  is(pool.take(), page);
  is(pool.find('this'), undefined);
});

test('steps that were aborted leave no keys, and none on what they wrote over', () => {
  const cache = cacheOf(8);
  const ids = idsFrom(0, 9);
  const sequence = cache.createSequence();
  for (const written of [false, true]) {
    const step = cache.begin([{ sequence, tokens: ids }]);
    if (written) appendToAll(cache, step, computed(ids));
    step.abort();
    is(tokensFound(cache, ids), 0);
  }
  feed(cache, sequence, ids.slice(0, 8));
  sequence.truncate(6);
  const step = cache.begin([{ sequence, tokens: [50] }]);
  appendToAll(cache, step, computed([50], 6));
  step.abort();
  is(tokensFound(cache, ids), 4);
  feed(cache, sequence, ids.slice(6));
  is(tokensFound(cache, ids), 8);
  assertHoldsIds(backend, cache, sequence, ids, 'in the end');
  cache.dispose();
});

test('the ids of a step are those at its beginning, whatever becomes of the array', () => {
  for (const ids of [idsFrom(0, 8), Uint32Array.from(idsFrom(0, 8))]) {
    const cache = cacheOf(8);
    const sequence = cache.createSequence();
    const step = cache.begin([{ sequence, tokens: ids }]);
    appendToAll(cache, step, computed(ids));
    if (Array.isArray(ids)) ids.push(8);
    ids[0] = 77;
    step.commit();
    is(tokensFound(cache, [77, ...idsFrom(1, 8)]), 0);
    is(tokensFound(cache, idsFrom(0, 9)), 8);
    feed(cache, sequence, idsFrom(8, 4));
    is(tokensFound(cache, idsFrom(0, 13)), 12);
    cache.dispose();
  }
});

test('behind tokens that were only counted nothing is known, until they are cut', () => {
  const cache = cacheOf(8);
  const ids = idsFrom(0, 13);
  const sequence = prompted(cache, ids.slice(0, 5));
  const count = cache.begin([{ sequence, tokens: 1 }]);
  appendToAll(cache, count, computed(ids.slice(5, 6), 5));
  count.commit();
  feed(cache, sequence, ids.slice(6, 12));
  is(tokensFound(cache, ids), 4);
  sequence.fork().free();
  sequence.truncate(5);
  feed(cache, sequence, ids.slice(5, 12));
  is(tokensFound(cache, ids), 12);
  assertHoldsIds(backend, cache, sequence, ids.slice(0, 12), 'in the end');
  cache.dispose();
});

test('many sequences in a step each get their keys', () => {
  const cache = cacheOf(12);
  const lists = [0, 100, 200].map((first) => idsFrom(first, 9));
  const sequences = lists.map(() => cache.createSequence());
  const step = cache.begin(sequences.map((sequence, s) => ({ sequence, tokens: lists[s].slice(0, 8) })));
  appendToAll(cache, step, computed(lists.flatMap((ids) => ids.slice(0, 8))));
  step.commit();
  for (const ids of lists) is(tokensFound(cache, ids), 8);
  // The same tokens twice in one step: one of the two pages has the key.
  const twins = [0, 1].map(() => cache.createSequence());
  const both = cache.begin(twins.map((sequence) => ({ sequence, tokens: idsFrom(300, 4) })));
  appendToAll(cache, both, computed([...idsFrom(300, 4), ...idsFrom(300, 4)]));
  both.commit();
  is(cache.matchPrefixSync(idsFrom(300, 5)).sequence.blocks[0], twins[0].blocks[0]);
  cache.dispose();
});

test('the counters say what was found, what was not, and what had to go', () => {
  const cache = cacheOf(3);
  const zero = { hits: 0, misses: 0, evictions: 0, stored: 0, fetched: 0 };
  equal(cache.prefixCounters, zero);
  const before = cache.prefixCounters;
  tokensFound(cache, idsFrom(0, 9));
  equal(cache.prefixCounters, { ...zero, misses: 2 });
  prompted(cache, idsFrom(0, 8)).free();
  tokensFound(cache, idsFrom(0, 13));
  equal(cache.prefixCounters, { ...zero, hits: 2, misses: 3 });
  tokensFound(cache, idsFrom(0, 3));
  prompted(cache, idsFrom(100, 12)).free();
  equal(cache.prefixCounters, { ...zero, hits: 2, misses: 3, evictions: 2 });
  equal(before, zero, 'they are as of when they were read');
  cache.dispose();
});

test('a cache of another model or of other options finds nothing in the same store, one of another size all', async () => {
  const store = memoryStore();
  const prefix = { model: 'stand-in', store };
  const ids = idsFrom(0, 9);
  const first = cacheOf(8, { prefix });
  is(await first.storePrefix(prompted(first, ids)), 2);
  const foundBy = async (options: Partial<KvCacheOptions>): Promise<number> => {
    const cache = cacheOf(8, { prefix, ...options });
    const { length } = await cache.matchPrefix(ids);
    cache.dispose();
    return length;
  };
  is(await foundBy({}), 8);
  is(await foundBy({ capacity: 1024 }), 8);
  const others: Partial<KvCacheOptions>[] = [
    { prefix: { model: 'stand-in, finetuned', store } }, { blockSize: 2 }, { layers: 3 }, { dtype: 'e5m2' }, { dtype: { k: 'fp8', v: 'e5m2' } }, { dtype: 'f32' },
    { granularity: 'tensor' }, { granularity: 'tensor', scale: 0.5 }, { granularity: 'group', groupSize: 8 }, { recipe: 'vllm-token-head' }, { scalePrecision: 'f16' },
    { queryHeads: 8 }, { kvHeads: 1 }, { headDim: 16 }, { softcap: 30 }, { windowLeft: 5 }, { causal: false }, { softmaxScale: 0.5 }, { sinks: new Float32Array(4) },
    { skipLayers: [1] }, { layers: [{}, { softcap: 30 }] },
  ];
  for (const options of others) is(await foundBy(options), 0, JSON.stringify(options));
  const given = cacheOf(8, { prefix, granularity: 'tensor', scale: 0.5 });
  await given.storePrefix(prompted(given, ids));
  is(await foundBy({ granularity: 'tensor', scale: 0.25 }), 0, 'another scale');
  is(await foundBy({ granularity: 'tensor', scale: 0.5 }), 8);
  first.dispose();
  given.dispose();
});

test('a restore keeps the keys of what sequences hold', async () => {
  const cache = cacheOf(12);
  const [held, freed] = [idsFrom(0, 9), idsFrom(100, 9)];
  const sequence = prompted(cache, held);
  const twin = sequence.fork();
  prompted(cache, freed).free();
  const checkpoint = await cache.checkpoint();
  feed(cache, sequence, idsFrom(9, 7));
  sequence.truncate(2);
  is(tokensFound(cache, freed), 8);
  await cache.restore(wasmBackend(), structuredClone(checkpoint));
  is(tokensFound(cache, freed), 0, 'pages without an owner are not in a checkpoint');
  is(tokensFound(cache, held), 8);
  is(sequence.length, 9);
  feed(cache, sequence, idsFrom(9, 4));
  is(tokensFound(cache, idsFrom(0, 14)), 12, 'what comes after a restore is found, too');
  equal(cache.matchPrefixSync(held).sequence.blocks, twin.blocks.slice(0, 2));
  await cache.restore(backend);
  is(tokensFound(cache, held), 0);
  is(cache.freePages, 12);
  feed(cache, sequence, held);
  is(tokensFound(cache, held), 8);
  assertHoldsIds(backend, cache, sequence, held, 'computed once more');
  cache.dispose();
});

test('two matches of the same prefix at a time get the same tokens', async () => {
  const store = memoryStore();
  const prefix = { model: 'stand-in', store };
  const ids = idsFrom(0, 21);
  const first = cacheOf(8, { prefix });
  await first.storePrefix(prompted(first, ids));
  first.dispose();
  const cache = cacheOf(16, { prefix });
  const matches = await Promise.all([ids, ids, ids.slice(0, 10)].map((tokens) => cache.matchPrefix(tokens)));
  equal(matches.map(({ length }) => length), [20, 20, 8]);
  for (const { sequence, length } of matches) assertHoldsIds(backend, cache, sequence, ids.slice(0, length), 'a match');
  for (const { sequence } of matches) sequence.free();
  is(cache.freePages, 16);
  is(tokensFound(cache, ids), 20);
  cache.dispose();
});

/** A store whose `get` waits until it is let go. */
function heldStore(): PageStore & { letGo(): void; readonly values: Map<string, Uint8Array> } {
  let letGo = (): void => {};
  const held = new Promise<void>((resolve) => (letGo = resolve));
  const inner = memoryStore();
  return { ...inner, get: async (key) => held.then(() => inner.get(key)), letGo };
}

test('while a match is under way, the cache is not restored, but goes on otherwise', async () => {
  const store = heldStore();
  const cache = cacheOf(8, { prefix: { model: 'stand-in', store } });
  const ids = idsFrom(0, 13);
  const sequence = prompted(cache, ids);
  await cache.storePrefix(sequence);
  sequence.free();
  prompted(cache, idsFrom(100, 28)).free();
  await cache.settled();
  const match = cache.matchPrefix(ids);
  await refused(cache.restore(wasmBackend()), Error, /"restore" expected no pages on their way/);
  const other = prompted(cache, idsFrom(200, 4));
  store.letGo();
  const { sequence: found, length } = await match;
  is(length, 12);
  assertHoldsIds(backend, cache, found, ids.slice(0, 12), 'the match');
  assertHoldsIds(backend, cache, other, idsFrom(200, 4), 'the other');
  found.free();
  await cache.restore(backend);
  cache.dispose();
});

test('a match of a cache that is disposed of meanwhile is refused, whatever the store says', async () => {
  const ids = idsFrom(0, 13);
  for (const full of [false, true]) {
    const store = heldStore();
    const prefix = { model: 'stand-in', store };
    if (full) {
      const first = cacheOf(8, { prefix });
      await first.storePrefix(prompted(first, ids));
      first.dispose();
    }
    const cache = cacheOf(8, { prefix });
    const match = cache.matchPrefix(ids);
    cache.dispose();
    store.letGo();
    await refused(match, TypeError, /expected to be in use, got .* disposed of/);
    is(cache.live.size, 0);
  }
});

test('options that do not fit are refused, by their names', () => {
  const wrong = (prefix: unknown, message: RegExp, options: Partial<KvCacheOptions> = {}): void => {
    throws(() => cacheOf(8, { prefix: prefix as PrefixOptions, ...options }), (error: Error) => (error instanceof TypeError || error instanceof RangeError) && message.test(error.message));
  };
  const model = 'stand-in';
  for (const nothing of [null, 'stand-in', 7]) wrong(nothing, /"prefix" expected { model }, got/);
  for (const nameless of [{}, { model: '' }, { model: 7 }]) wrong(nameless, /"prefix.model" expected a name, got/);
  const { get, put, has } = memoryStore();
  wrong({ model, store: { get, put } }, /"prefix.store" expected get, put and has, got .* without has/);
  wrong({ model, store: { put, has } }, /without get/);
  wrong({ model, store: { get, has, put: true } }, /without put/);
  wrong({ model, store: null }, /"prefix.store" expected get, put and has, got null without get/);
  for (const storeTimeout of [0, -1, 1.5, Infinity, NaN, 2 ** 31, '1']) wrong({ model, storeTimeout }, /"prefix.storeTimeout" expected an integer from 1 to 2147483647, got/);
  const prefix = { model };
  wrong(prefix, /expected layout paged/, { layout: 'contiguous', blockSize: undefined });
  wrong(prefix, /without "residual"/, { residual: 4 });
  wrong(prefix, /without "slidingWindow"/, { slidingWindow: 8, chunk: 4 } as Partial<KvCacheOptions>);
});

test('arguments that do not fit are refused, and change nothing', async () => {
  const cache = cacheOf(8);
  const sequence = prompted(cache, idsFrom(0, 8));
  for (const [ids, kind, message] of [
    [undefined, TypeError, /"tokens" expected the ids of tokens, got undefined/], [null, TypeError, /"tokens" expected/], [9, TypeError, /"tokens" expected/], ['12', TypeError, /"tokens" expected/],
    [{}, TypeError, /"tokens" expected/], [[1, -1], RangeError, /"tokens\[1\]" expected/], [[2 ** 32], RangeError, /"tokens\[0\]" expected/], [[0.5], RangeError, /"tokens\[0\]" expected/],
    [['1'], RangeError, /"tokens\[0\]" expected/], [[1, undefined], RangeError, /"tokens\[1\]" expected/],
    [{ length: NaN }, TypeError, /"tokens" expected/], [{ length: -1 }, TypeError, /"tokens" expected/], [{ 0: 1, 1: 2, length: 1.5 }, TypeError, /"tokens" expected/],
  ] as [number[], new () => Error, RegExp][]) {
    throws(() => cache.matchPrefixSync(ids), (error: Error) => error instanceof kind && message.test(error.message));
    await refused(cache.matchPrefix(ids), kind, message);
  }
  throws(() => cache.begin([{ sequence, tokens: [1, 2 ** 32] }]), /"entries\[0\].tokens\[1\]" expected an integer from 0 to 4294967295/);
  for (const ids of [null, { length: -1 }, { length: NaN }]) throws(() => cache.begin([{ sequence, tokens: ids as number[] }]), /"entries\[0\].tokens" expected/);
  await refused(cache.storePrefix(sequence), TypeError, /"prefix.store" expected a store/);
  is(cache.live.size, 1);
  is(cache.freePages, 6);

  const store = memoryStore();
  const stored = cacheOf(8, { prefix: { model: 'stand-in', store } });
  const own = prompted(stored, idsFrom(0, 8));
  const step = stored.begin([{ sequence: own, tokens: 1 }]);
  await refused(stored.storePrefix(own), Error, /expected to be idle, got one that is in a step/);
  step.abort();
  for (const foreign of [sequence, undefined, {}]) await refused(stored.storePrefix(foreign as Sequence), TypeError, /"sequence" expected a sequence of this cache, got/);
  is(store.values.size, 0);
  own.free();
  await refused(stored.storePrefix(own), Error, /expected to be idle, got one that is freed/);
  stored.dispose();
  cache.dispose();
  await refused(cache.matchPrefix([1]), TypeError, /"cache" expected to be in use/);

  const plain = cacheOf(8, { prefix: undefined });
  await refused(plain.matchPrefix([1, 2]), TypeError, /"matchPrefix" expected a cache that was made with "prefix"/);
  throws(() => plain.matchPrefixSync([1, 2]), /"matchPrefixSync" expected a cache that was made with "prefix"/);
  throws(() => plain.prefixCounters, /"prefixCounters" expected a cache that was made with "prefix"/);
  await refused(plain.storePrefix(plain.createSequence()), TypeError, /"storePrefix" expected/);
  await refused(plain.settled(), TypeError, /"settled" expected/);
  feed(plain, plain.createSequence(), idsFrom(0, 8));
  plain.dispose();
});

/** Anything that sequences do, in any order, in a cache that is too small for all of it: what is found is always right. */
test('sequences that come, fork, are cut and go hold what was computed for their tokens', async () => {
  const PAGES = 9;
  for (let seed = 0; seed < 60; seed++) {
    const numbers = random(seed);
    const store = memoryStore();
    // Every other run has a store, and every other of these loses values.
    const cache = cacheOf(PAGES, { prefix: seed % 2 === 0 ? { model: 'stand-in' } : { model: 'stand-in', store } });
    const known: { sequence: Sequence; ids: number[] }[] = [];
    const some = (): number => numbers.integer(known.length);
    // Of two kinds of tokens, so that many begin alike.
    const tokens = (count: number): number[] => Array.from({ length: count }, () => numbers.integer(2));
    const fits = (count: number): boolean => cache.freePages >= Math.ceil(count / 4) + 1;
    const actions: (() => void | Promise<void>)[] = [
      async () => {
        const ids = tokens(1 + numbers.integer(14));
        const { sequence, length } = seed % 2 === 0 ? cache.matchPrefixSync(ids) : await cache.matchPrefix(ids);
        ok(length < ids.length && length % 4 === 0);
        known.push({ sequence, ids: ids.slice(0, length) });
      },
      () => {
        const one = known[some()];
        const more = tokens(1 + numbers.integer(6));
        if (!fits(more.length)) return;
        feed(cache, one.sequence, more);
        one.ids.push(...more);
      },
      () => {
        const { sequence } = known[some()];
        if (!fits(5)) return;
        const step = cache.begin([{ sequence, tokens: tokens(5) }]);
        if (numbers.integer(2)) appendToAll(cache, step, computed([7, 7, 7, 7, 7]));
        step.abort();
      },
      () => {
        const { sequence, ids } = known[some()];
        known.push({ sequence: sequence.fork(), ids: [...ids] });
      },
      () => {
        const { sequence, ids } = known[some()];
        ids.length = numbers.integer(ids.length + 1);
        sequence.truncate(ids.length);
      },
      () => known.splice(some(), 1)[0].sequence.free(),
      () => {
        if (seed % 4 === 3) for (const key of store.values.keys()) if (numbers.integer(2)) store.values.delete(key);
      },
    ];
    for (let round = 0; round < 80; round++) {
      const action = known.length === 0 ? 0 : known.length > 6 ? 5 : numbers.integer(actions.length);
      await actions[action]();
      is(PAGES - cache.freePages, new Set(known.flatMap(({ sequence }) => sequence.blocks)).size, `seed ${seed}, round ${round}: pages in use`);
    }
    for (const { sequence, ids } of known) assertHoldsIds(backend, cache, sequence, ids, `seed ${seed}`);
    await cache.settled();
    cache.dispose();
  }
});
