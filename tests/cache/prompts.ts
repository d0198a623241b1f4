/** Tokens by their ids, through a stand-in for a model: keys and values that depend on the token and on its place. */
import { KvCache, onWarning, type Backend, type KvCacheOptions, type PageStore, type Sequence, type TokenIds } from '../../src/index.js';
import { random } from '../random.js';
import { appendToAll, assertHolds, concatenate, fp8, randomTokens, type Tokens } from './tokens.js';

/** Of pages of 4 tokens. */
export function prefixCache(backend: Backend, pages: number, options: Partial<KvCacheOptions> = {}): KvCache {
  return new KvCache(backend, { ...fp8, layers: 2, blockSize: 4, capacity: pages * 4, prefix: { model: 'stand-in' }, ...options } as KvCacheOptions);
}

/** Ids from `first` on. */
export const idsFrom = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => first + i);

const made = new Map<string, Tokens>();

function tokenAt(id: number, place: number): Tokens {
  const name = `${id} at ${place}`;
  const token = made.get(name) ?? randomTokens(random(id * 65_537 + place), fp8, 1);
  made.set(name, token);
  return token;
}

/** What the model says of tokens that come behind `place` others. */
export const computed = (ids: TokenIds, place = 0): Tokens => concatenate(Array.from(ids, (id, i) => tokenAt(id, place + i)));

/** A committed step of a sequence. */
export function feed(cache: KvCache, sequence: Sequence, ids: readonly number[]): void {
  const step = cache.begin([{ sequence, tokens: ids }]);
  appendToAll(cache, step, computed(ids, sequence.length));
  step.commit();
}

/** A new sequence that has these tokens, all of them computed. */
export function prompted(cache: KvCache, ids: readonly number[]): Sequence {
  const sequence = cache.createSequence();
  feed(cache, sequence, ids);
  return sequence;
}

/** How many of these tokens a match finds; their pages then are the last to go. */
export function tokensFound(cache: KvCache, ids: readonly number[]): number {
  const { sequence, length } = cache.matchPrefixSync(ids);
  sequence.free();
  return length;
}

/** The sequence attends as if these tokens had been computed for it alone. */
export const assertHoldsIds = (backend: Backend, cache: KvCache, sequence: Sequence, ids: readonly number[], what: string): void => assertHolds(backend, cache, sequence, computed(ids), fp8, what);

/** A store in memory that counts its calls, some of which may be others. */
export function memoryStore(change: Partial<PageStore> = {}): PageStore & { readonly values: Map<string, Uint8Array>; readonly calls: { get: number; put: number; has: number } } {
  const values = new Map<string, Uint8Array>();
  const calls = { get: 0, put: 0, has: 0 };
  const store: PageStore = {
    get: async (key) => values.get(key),
    put: async (key, value) => void values.set(key, value.slice()),
    has: async (key) => values.has(key),
    ...change,
  };
  return {
    values, calls,
    get: (key) => (calls.get++, store.get(key)),
    put: (key, value) => (calls.put++, store.put(key, value)),
    has: (key) => (calls.has++, store.has(key)),
  };
}

/** What was warned of meanwhile. */
export async function warningsOf(body: () => Promise<void>): Promise<string[]> {
  const warnings: string[] = [];
  const end = onWarning((message) => void warnings.push(message));
  try {
    await body();
  } finally {
    end();
  }
  return warnings;
}
