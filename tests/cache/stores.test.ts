import { mkdtempSync, readdirSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createStorage } from 'unstorage';
import fsDriver from 'unstorage/drivers/fs';
import memoryDriver from 'unstorage/drivers/memory';
import { equal, is, match, ok, throws } from 'uvu/assert';
import { onWarning, unstoragePages, wasmBackend, type KvCache, type PageStore, type PrefixOptions, type RawStorage } from '../../src/index.js';
import { suite } from '../suite.js';
import { assertHoldsIds, computed, feed, idsFrom, memoryStore, prefixCache, prompted, tokensFound, warningsOf } from './prompts.js';
import { appendToAll } from './tokens.js';

const test = suite('stores of pages');
const backend = wasmBackend();
const cacheOf = (pages: number, store: PageStore, options: Partial<PrefixOptions> = {}): KvCache => prefixCache(backend, pages, { prefix: { model: 'stand-in', store, ...options } });
const ids = idsFrom(0, 13);

/** Pages of these tokens go to the store. */
async function fill(store: PageStore, tokens = ids): Promise<void> {
  const cache = cacheOf(16, store);
  is(await cache.storePrefix(prompted(cache, tokens)), Math.floor(tokens.length / 4));
  cache.dispose();
}

/** A match in a new cache, which then computes the rest: all is as if nothing had been found. */
async function matchAndContinue(store: PageStore, options: Partial<PrefixOptions> = {}): Promise<number> {
  const cache = cacheOf(16, store, options);
  const { sequence, length } = await cache.matchPrefix(ids);
  feed(cache, sequence, [...ids.slice(length), 50, 51, 52, 53, 54]);
  assertHoldsIds(backend, cache, sequence, [...ids, 50, 51, 52, 53, 54], 'the match, continued');
  sequence.free();
  is(cache.freePages, 16);
  is(tokensFound(cache, ids), 12, 'what was computed instead is found');
  cache.dispose();
  return length;
}

const stores: { [name: string]: () => PageStore } = {
  memory: () => unstoragePages(createStorage({ driver: memoryDriver() })),
  'a folder': () => unstoragePages(createStorage({ driver: fsDriver({ base: temporaryFolder() }) }), 'pages:of tests'),
  'a Map': memoryStore,
};
const folders: string[] = [];
function temporaryFolder(): string {
  folders.push(mkdtempSync(join(tmpdir(), 'fp8-kv-')));
  return folders.at(-1)!;
}
test.after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

for (const [name, create] of Object.entries(stores)) {
  test(`what one cache stores, another finds, bit for bit (${name})`, async () => {
    const store = create();
    const warnings = await warningsOf(async () => {
      is(await matchAndContinue(store), 0);
      await fill(store);
      is(await matchAndContinue(store), 12);
      const cache = cacheOf(16, store);
      const { sequence, length } = await cache.matchPrefix([...ids.slice(0, 10), 99, 98, 97]);
      is(length, 8);
      is(tokensFound(cache, ids), 8, 'at once, what came from the store');
      equal(cache.prefixCounters, { hits: 4, misses: 2, evictions: 0, stored: 0, fetched: 2 });
      is(await cache.storePrefix(sequence), 0, 'it is there');
      cache.dispose();
    });
    equal(warnings, []);
  });
}

test('pages that make room go to the store, as they were, and come back', async () => {
  const store = memoryStore();
  for (const own of [backend, wasmBackend({ threads: 2 })]) {
    const cache = prefixCache(own, 6, { prefix: { model: `stand-in ${own.kind}`, store } });
    prompted(cache, ids).free();
    // All six pages are taken at once, and written over before the store has seen what was in them.
    prompted(cache, idsFrom(100, 24)).free();
    equal(cache.prefixCounters, { hits: 0, misses: 0, evictions: 3, stored: 0, fetched: 0 });
    await cache.settled();
    is(cache.prefixCounters.stored, 3);
    const { sequence, length } = await cache.matchPrefix(ids);
    is(length, 12);
    is(cache.prefixCounters.fetched, 3);
    feed(cache, sequence, ids.slice(12));
    if (own === backend) assertHoldsIds(backend, cache, sequence, ids, 'what came back');
    sequence.free();
    await cache.settled();
    equal(cache.prefixCounters, { hits: 3, misses: 0, evictions: 3 + 4, stored: 3 + 4, fetched: 3 });
    const puts = store.calls.put;
    prompted(cache, idsFrom(200, 24)).free();
    await cache.settled();
    is(store.calls.put - puts, 2, 'those that came from the store are there');
    cache.dispose();
    if (own !== backend) own.dispose();
  }
});

test('no more comes from the store than there is room for, and none of it twice', async () => {
  const store = memoryStore();
  await fill(store, idsFrom(0, 40));
  const cache = cacheOf(5, store);
  const held = prompted(cache, idsFrom(100, 5));
  const { sequence, length } = await cache.matchPrefix(idsFrom(0, 41));
  is(length, 12);
  is(cache.freePages, 0);
  const again = await cache.matchPrefix(idsFrom(0, 41));
  is(again.length, 12);
  equal(again.sequence.blocks, sequence.blocks);
  assertHoldsIds(backend, cache, sequence, idsFrom(0, 12), 'the match');
  assertHoldsIds(backend, cache, held, idsFrom(100, 5), 'what was there');
  sequence.free();
  again.sequence.free();
  is(cache.freePages, 3);
  cache.dispose();
});

const never = (): Promise<never> => new Promise(() => {});
const down = (): Promise<never> => Promise.reject(new Error('connection refused'));
const thrown = (): never => {
  throw new Error('no such command');
};

for (const [name, broken, reason] of [
  ['never answers', never, /no answer within 20 ms/],
  ['is down', down, /connection refused/],
  ['throws', thrown, /no such command/],
  ['answers when it is too late', () => new Promise<never>((_, reject) => void setTimeout(() => reject(new Error('late')), 40)), /no answer within 20 ms/],
] as const) {
  test(`a store that ${name} costs a recomputation and a warning`, async () => {
    const options = { storeTimeout: 20 };
    const store = memoryStore();
    await fill(store);
    const began = performance.now();
    const warnings = await warningsOf(async () => is(await matchAndContinue({ ...store, get: broken }, options), 0));
    ok(performance.now() - began < 5000);
    is(warnings.length, 3, 'one for each page');
    for (const warning of warnings) {
      match(warning, /^the page store did not give page [\da-f]{64}, which is computed instead: /);
      match(warning, reason);
    }
    await new Promise((resolve) => void setTimeout(resolve, 60));

    const cache = cacheOf(3, { ...memoryStore(), put: broken }, options);
    const sequence = prompted(cache, ids.slice(0, 12));
    const refused = await warningsOf(async () => {
      is(await cache.storePrefix(sequence), 0);
      sequence.free();
      prompted(cache, idsFrom(100, 12)).free();
      await cache.settled();
    });
    is(refused.length, 1 + 3, 'on request the first that does not get there is the last');
    for (const warning of refused) {
      match(warning, /^the page store did not take page [\da-f]{64}: /);
      match(warning, reason);
    }
    is(cache.prefixCounters.stored, 0);
    is(cache.prefixCounters.evictions, 3);
    is(tokensFound(cache, idsFrom(100, 13)), 12, 'the cache itself goes on');
    cache.dispose();

    const other = memoryStore({ has: broken });
    const blind = cacheOf(16, other, options);
    is(await blind.storePrefix(prompted(blind, ids)), 3, 'where the store does not say what it has, it gets all');
    is(other.values.size, 3);
    blind.dispose();
  });
}

/** What a store might give in place of a value. */
function garbage(value: Uint8Array, other: Uint8Array): [string, unknown][] {
  const flipped = value.slice();
  flipped[100] ^= 4;
  return [
    ['nothing of it', new Uint8Array()], ['the value of another key', other], ['a part of it', value.subarray(0, value.length - 1)], ['more', Uint8Array.of(...value, 0)],
    ['one bit of it changed', flipped], ['zeros', new Uint8Array(value.length)], ['text', Buffer.from(value).toString('base64')], ['an object', { ...value }], ['a number', 7], ['true', true],
    ['no text', ''], ['zero', 0], ['false', false],
    ['an array', [...value]],
  ];
}

test('a store that gives something else costs a recomputation and a warning', async () => {
  const store = memoryStore();
  await fill(store);
  const [first, second] = [...store.values.keys()];
  for (const [name, value] of garbage(store.values.get(second)!, store.values.get(first)!)) {
    const warnings = await warningsOf(async () => {
      is(await matchAndContinue({ ...store, get: async (key) => (key === second ? (value as Uint8Array) : store.values.get(key)) }), 4, name);
    });
    is(warnings.length, 1, name);
    match(warnings[0], new RegExp(`^the page store gave something else for page ${second}, which is computed instead: page value`));
  }
  for (const nothing of [undefined, null]) equal(await warningsOf(async () => is(await matchAndContinue({ ...store, get: async () => nothing }), 0)), []);
});

test('values of every kind of bytes are read', async () => {
  const store = memoryStore();
  await fill(store);
  const kinds: ((value: Uint8Array) => Uint8Array | ArrayBuffer)[] = [(value) => Buffer.from(value), (value) => value.slice().buffer, (value) => Uint8Array.of(0, ...value).subarray(1)];
  for (const kind of kinds) is(await matchAndContinue({ ...store, get: async (key) => kind(store.values.get(key)!) as Uint8Array }), 12);
});

test('a file that was not written to its end is not taken, and is replaced on request', async () => {
  const base = temporaryFolder();
  const store = unstoragePages(createStorage({ driver: fsDriver({ base }) }));
  await fill(store);
  const folder = join(base, 'fp8-kv');
  const files = readdirSync(folder);
  is(files.length, 3);
  for (const file of files) truncateSync(join(folder, file), 100);
  const cache = cacheOf(16, store);
  const warnings = await warningsOf(async () => {
    const { sequence, length } = await cache.matchPrefix(ids);
    is(length, 0);
    feed(cache, sequence, ids);
    is(await cache.storePrefix(sequence), 1, 'the first: of those behind it nothing is known');
  });
  match(warnings.join(), /^the page store gave something else for page [\da-f]{64}, which is computed instead: page value, byte 100: expected \d+ bytes for these layers, got 100$/);
  cache.dispose();
});

test('what the store has lost goes there again on request', async () => {
  const store = memoryStore();
  const cache = cacheOf(16, store);
  const sequence = prompted(cache, ids);
  is(await cache.storePrefix(sequence), 3);
  is(await cache.storePrefix(sequence), 0);
  is(store.calls.put, 3);
  store.values.delete([...store.values.keys()][1]);
  is(await cache.storePrefix(sequence), 1);
  is(store.values.size, 3);
  cache.dispose();
});

test('while its pages go to the store, a sequence goes on and may be freed', async () => {
  const store = memoryStore();
  const cache = cacheOf(8, { ...store, has: async (key) => new Promise((resolve) => void setTimeout(() => resolve(store.values.has(key)), 5)) });
  const sequence = prompted(cache, ids);
  const stored = cache.storePrefix(sequence);
  sequence.truncate(6);
  feed(cache, sequence, [70, 71, 72, 73]);
  sequence.free();
  const other = prompted(cache, idsFrom(100, 20));
  is(await stored, 3);
  assertHoldsIds(backend, cache, other, idsFrom(100, 20), 'the other');
  is(cache.freePages, 3);
  cache.dispose();
  is(await matchAndContinue(store), 12);
});

test('a store that is behind gets no more pages than it can be expected to take', async () => {
  const waiting: (() => void)[] = [];
  const store = memoryStore({ put: () => new Promise((resolve) => void waiting.push(resolve)) });
  const cache = cacheOf(300, store, { storeTimeout: 1 });
  const evictAll = (first: number): void => prompted(cache, idsFrom(first, 1200)).free();
  evictAll(0);
  const warnings = await warningsOf(async () => {
    evictAll(10_000);
    await cache.settled();
    // What the store has not answered it still holds, also when time was up.
    evictAll(20_000);
    await cache.settled();
  });
  is(store.calls.put, 256);
  is(warnings.filter((warning) => /is not stored: 256 pages are on their way to the page store already/.test(warning)).length, 600 - 256);
  for (const answer of waiting.splice(0)) answer();
  await new Promise(setImmediate);
  await warningsOf(async () => {
    evictAll(30_000);
    await cache.settled();
  });
  is(store.calls.put, 512, 'once it has answered, it gets others');
  cache.dispose();
});

test('a listener of warnings that throws leaves neither a step nor a match half done', async () => {
  const cache = cacheOf(257, memoryStore({ put: () => new Promise(() => {}), get: () => Promise.reject(new Error('down')) }), { storeTimeout: 1 });
  prompted(cache, idsFrom(0, 4 * 257)).free();
  const end = onWarning(() => {
    throw new Error('so much for that');
  });
  const { error } = console;
  const said: unknown[][] = [];
  console.error = (...all: unknown[]) => void said.push(all);
  try {
    prompted(cache, idsFrom(5000, 4 * 257)).free();
    is((await cache.matchPrefix(ids)).length, 0);
    await cache.settled();
  } finally {
    console.error = error;
    end();
  }
  is(cache.freePages, 257);
  is(said.length, 1 + 256 + 3, 'one page too many, those that were late, and those that were asked for');
  match(String(said[0][0]), /a listener of warnings threw/);
  for (const listener of [undefined, null, 'log']) throws(() => onWarning(listener as never), /"listener" expected a function, got/);
  cache.dispose();
});

test('a page that cannot be read does not stop the step that needs its room', async () => {
  const store = memoryStore();
  const own = wasmBackend();
  const cache = prefixCache(own, 3, { prefix: { model: 'stand-in', store } });
  prompted(cache, ids.slice(0, 12)).free();
  cache.pages(1).export = () => {
    throw new Error('gone');
  };
  const warnings = await warningsOf(async () => {
    const sequence = cache.createSequence();
    const step = cache.begin([{ sequence, tokens: 12 }]);
    appendToAll(cache, step, computed(idsFrom(50, 12)));
    step.commit();
    await cache.settled();
    assertHoldsIds(own, cache, sequence, idsFrom(50, 12), 'the step');
  });
  is(warnings.length, 3);
  match(warnings[0], /did not take page [\da-f]{64}: gone/);
  is(store.calls.put, 0);
  cache.dispose();
});

test('unstorage is asked for raw values, under names that begin alike', async () => {
  const asked: string[] = [];
  const values = new Map<string, unknown>();
  const storage: RawStorage = {
    getItemRaw: async (name) => (asked.push(`get ${name}`), values.get(name) ?? null),
    setItemRaw: async (name, value) => (asked.push(`set ${name}`), void values.set(name, value)),
    hasItem: async (name) => (asked.push(`has ${name}`), values.has(name)),
  };
  const store = unstoragePages(storage, 'mine');
  is(await store.get('a'), undefined);
  await store.put('a', Uint8Array.of(1, 2));
  is(await store.has('a'), true);
  equal(await store.get('a'), Uint8Array.of(1, 2));
  equal(asked, ['get mine:a', 'set mine:a', 'has mine:a', 'get mine:a']);
  is(await unstoragePages(storage).has('a'), false);
  is(asked.at(-1), 'has fp8-kv:a');
  values.set('mine:a', Uint8Array.of(3).buffer);
  equal(await store.get('a'), Uint8Array.of(3));
  values.set('mine:a', 'three');
  const error = await store.get('a').then(() => undefined, (reason: unknown) => reason);
  ok(error instanceof TypeError && /expected bytes, got string/.test(error.message));
  throws(() => unstoragePages(undefined as never), /"storage" expected one of unstorage, got undefined without getItemRaw/);
  throws(() => unstoragePages(store as never), /"storage" expected one of unstorage, got Object without getItemRaw/);
});
