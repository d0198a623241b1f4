/** Snapshots beside all else that goes on in a cache. */
import { equal, is, match, ok, throws } from 'uvu/assert';
import { KvCache, saveSnapshot, wasmBackend, type Sequence } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { collectGarbage } from '../gc.js';
import { suite } from '../suite.js';
import { advance, assertSameContents, assertSameResults, cacheOf, goOn, live, load, save, structures } from './snapshots.js';

const test = suite('cache, snapshots beside steps');
const backend = wasmBackend();
const PAGES = 60;

async function rest(generator: AsyncGenerator<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of generator) chunks.push(chunk.slice());
  return new Uint8Array(Buffer.concat(chunks));
}

test('forks share pages of any size, as far as those hold the same', async () => {
  const cache = cacheOf(backend);
  const first = cache.createSequence();
  await advance(cache, [[first, 10]], 1);
  const twin = first.fork();
  const short = first.fork();
  short.truncate(6);
  await advance(cache, [[first, 1], [twin, 1]], 2);
  is(cache.freePages, PAGES - 2 - 2);
  const bytes = await save(cache);
  // The first 8 tokens are shared, and what came into a page of 4 behind them is not.
  for (const [blockSize, pages] of [[4, 4], [1, 8 + 3 + 3], [2, 4 + 2 + 2], [8, 1 + 1 + 1], [3, 2 + 2 + 2], [16, 1 + 1]]) {
    const other = cacheOf(backend, { blockSize, capacity: 16 * 20 });
    const free = other.freePages;
    const loaded = await load(other, bytes);
    is(free - other.freePages, pages, `pages of ${blockSize}`);
    await assertSameContents(cache, [first, twin, short], other, loaded, `pages of ${blockSize}`);
    const results = await advance(other, loaded.map((each) => [each, 3]), 3);
    assertSameResults(results, await advance(cache, [first, twin, short].map((each) => [each, 3]), 3), `pages of ${blockSize}`);
    for (const each of [first, twin]) each.truncate(11);
    short.truncate(6);
    for (const each of loaded) each.free();
    is(other.freePages, free);
    other.dispose();
  }
});

test('one sequence of several, or some in another order', async () => {
  const cache = cacheOf(backend);
  const all = await live(cache);
  for (const some of [[all[1]], [all[2], all[0]], []]) {
    const other = cacheOf(backend);
    await assertSameContents(cache, some, other, await load(other, await save(cache, some)), 'some');
    other.dispose();
  }
  all[0].free();
  const other = cacheOf(backend);
  await assertSameContents(cache, all.slice(1), other, await load(other, await save(cache)), 'all that were not freed');
  is((await save(cache)).length < (await save(cache, all.slice(1)).then(({ length }) => length)) + 1, true);
});

for (const name of ['all tokens', 'all of it']) {
  test(`what is saved is what was there at the time of the call: ${name}`, async () => {
    const cache = cacheOf(backend, structures[name]);
    const sequences = await live(cache);
    const expected = await save(cache);
    const free = cache.groups.map(({ pool }) => pool.free);
    const saving = saveSnapshot(cache);
    await goOn(cache, sequences.slice(0, 2));
    const begun = [(await saving.next()).value as Uint8Array];
    await goOn(cache, [sequences[3]]);
    for (const each of sequences) each.free();
    ok(cache.groups.some(({ pool }, g) => pool.free < cache.groups[g].pageCount), 'pages that are still to be read');
    assertSameBits(new Uint8Array(Buffer.concat([...begun, await rest(saving)])), expected);
    equal(cache.groups.map(({ pool }) => pool.free), cache.groups.map(({ pageCount }) => pageCount));
    ok(free.every((pages, g) => pages < cache.groups[g].pageCount));
  });
}

/** A cache with two sequences, and whether a step of the first has to copy. */
async function beginning(): Promise<{ cache: KvCache; sequence: Sequence; isShared: () => boolean }> {
  const cache = cacheOf(backend);
  const sequence = cache.createSequence();
  await advance(cache, [[sequence, 6]], 1);
  const isShared = (): boolean => {
    const free = cache.freePages;
    const step = cache.begin([{ sequence, tokens: 1 }]);
    const copies = free - cache.freePages;
    step.abort();
    return copies > 0;
  };
  return { cache, sequence, isShared };
}

test('pages are given back when the generator ends, however it does', async () => {
  const { cache, isShared } = await beginning();
  const held = async (end: (generator: AsyncGenerator<Uint8Array>) => Promise<unknown>): Promise<void> => {
    const generator = saveSnapshot(cache);
    ok(isShared());
    const refusal = await cache.restore(backend).catch((error: unknown) => error);
    match(String(refusal), /"restore" expected no pages on their way/);
    await end(generator);
    is(isShared(), false);
    is((await generator.next()).done, true);
    await generator.return(undefined);
    is(isShared(), false);
  };
  await held(rest);
  await held((generator) => generator.return(undefined));
  await held(async (generator) => {
    for await (const _ of generator) break;
  });
  await held(async (generator) => {
    await generator.next();
    await generator.throw(new Error('enough')).catch(() => undefined);
  });
  await held((generator) => generator.throw(new Error('enough')).catch(() => undefined));
  await held(async (generator) => {
    await generator[Symbol.asyncDispose]();
  });
  await held((generator) => Promise.all([generator.next(), generator.return(undefined)]));
  await cache.restore(backend);
  is(cache.freePages, PAGES);
});

test('pages are given back when reading them fails', async () => {
  const { cache } = await beginning();
  const generator = saveSnapshot(cache);
  await generator.next();
  cache.dispose();
  match(String(await rest(generator).catch((error: unknown) => error)), /"pages" expected to be in use/);
  is(cache.freePages, PAGES - 2);
  is((await generator.next()).done, true);
});

test('pages are given back by a generator that nobody has', async () => {
  const { cache, isShared } = await beginning();
  ok((() => typeof saveSnapshot(cache).next)());
  ok(isShared());
  for (let i = 0; i < 100 && isShared(); i++) {
    collectGarbage();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  is(isShared(), false);
});

test('what cannot be saved is refused at once', async () => {
  const { cache, sequence } = await beginning();
  const other = cacheOf(backend);
  throws(() => saveSnapshot(cache, [sequence] as object), /"options" expected \{ sequences \}, got Array/);
  throws(() => saveSnapshot(cache, { sequences: [other.createSequence()] }), /"sequences\[0\]" expected a sequence of this cache, got Sequence/);
  throws(() => saveSnapshot(cache, { sequences: [sequence, {} as Sequence] }), /"sequences\[1\]" expected a sequence of this cache, got Object/);
  throws(() => saveSnapshot(cache, { sequences: sequence as never }), /"sequences" expected an array, got Sequence/);
  throws(() => saveSnapshot(cache, { sequences: [sequence, sequence] }), /"sequences\[1\]" expected each sequence once/);
  const twin = sequence.fork();
  const step = cache.begin([{ sequence, tokens: 1 }]);
  throws(() => saveSnapshot(cache), /expected to be idle, got one that is in a step/);
  ok((await save(cache, [twin])).length > 0);
  step.abort();
  twin.free();
  throws(() => saveSnapshot(cache, { sequences: [twin] }), /got one that is freed/);
  await cache.restore(backend);
  cache.dispose();
  throws(() => saveSnapshot(cache), /"cache" expected to be in use/);
  match(String(await load(cache, new Uint8Array(0)).catch((error: unknown) => error)), /"cache" expected to be in use/);
});

test('what comes in is nobody else\'s until it is there', async () => {
  const cache = cacheOf(backend);
  const bytes = await save(cache, await live(cache));
  const other = cacheOf(backend);
  const own = other.createSequence();
  const twin = cacheOf(backend);
  const twins = twin.createSequence();
  const seen: number[] = [];
  async function* slowly(): AsyncGenerator<Uint8Array> {
    for (let at = 0, i = 0; at < bytes.length; at += 300, i++) {
      yield bytes.subarray(at, at + 300);
      seen.push(other.live.size);
      assertSameResults(await advance(other, [[own, 1]], i), await advance(twin, [[twins, 1]], i), `beside chunk ${i}`);
      match(String(await other.restore(backend).catch((error: unknown) => error)), /expected no pages on their way/);
    }
  }
  const loaded = await load(other, slowly());
  equal([...new Set(seen)], [1]);
  ok(seen.length > 5);
  await assertSameContents(cache, [...cache.live], other, loaded, 'loaded');
  await assertSameContents(twin, [twins], other, [own], 'own');
  other.dispose();
});

test('a cache that is disposed of meanwhile gets nothing', async () => {
  const cache = cacheOf(backend);
  const bytes = await save(cache, await live(cache));
  const other = cacheOf(backend);
  async function* ended(): AsyncGenerator<Uint8Array> {
    yield bytes;
    other.dispose();
  }
  match(String(await load(other, ended()).catch((error: unknown) => error)), /"cache" expected to be in use/);
  is(other.live.size, 0);
});

test('pages that have names are found again where they mean the same', async () => {
  const ids = Array.from({ length: 19 }, (_, i) => i * 7);
  const named = (model: string, blockSize = 4): KvCache => cacheOf(backend, { prefix: { model }, blockSize });
  const cache = named('one');
  const sequence = cache.createSequence();
  await advance(cache, [[sequence, ids]], 1);
  const bytes = await save(cache);
  for (const other of [named('other'), named('one', 2), cacheOf(backend)]) {
    const [loaded] = await load(other, bytes);
    is(loaded.length, 19);
    if (other.keyChain) is(other.matchPrefixSync(ids).length, 0);
  }
  const other = named('one');
  const [loaded] = await load(other, bytes);
  is(other.matchPrefixSync(ids).length, 16);
  // What comes behind tokens that are not known has no name; what was cut off loses it.
  await advance(other, [[loaded, [1, 2, 3, 4, 5]]], 2);
  is(other.matchPrefixSync([...ids, 1, 2, 3, 4, 5, 6]).length, 16);
  loaded.truncate(9);
  await advance(other, [[loaded, [1, 2, 3, 4, 5]]], 2);
  equal(loaded.tokens.keys, sequence.tokens.keys.slice(0, 2));
  is(other.matchPrefixSync([...ids.slice(0, 9), 1, 2, 3, 4, 5]).length, 8);
  loaded.free();
  is(other.matchPrefixSync(ids).length, 16);
  // Saved once more, they still have their names; and as long as pages are there, so has the cache.
  const third = named('one');
  await load(third, await save(other, [other.matchPrefixSync(ids).sequence]));
  for (const each of third.live) each.free();
  is(third.matchPrefixSync(ids).length, 16);
});

test('pages that have names make room', async () => {
  const cache = cacheOf(backend);
  const [first] = await live(cache);
  const bytes = await save(cache, [first]);
  const other = cacheOf(backend, { prefix: { model: 'one' }, capacity: 24 });
  const sequence = other.createSequence();
  await advance(other, [[sequence, Array.from({ length: 20 }, (_, i) => i)]], 1);
  sequence.free();
  is(other.prefixCounters.evictions, 0);
  await assertSameContents(cache, [first], other, await load(other, bytes), 'in place of others');
  is(other.prefixCounters.evictions, 5);
});
