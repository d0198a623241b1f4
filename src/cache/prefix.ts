/** Tokens that were computed before, found again: full pages by their keys, in the cache and in a store beyond it. */
import type { NhdTensors, Pages } from '../backend.js';
import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';
import { checkOptions, type OptionNames } from '../options.js';
import { warn } from '../warn.js';
import type { BlockPool } from './blocks.js';
import type { Layer, ResolvedCache } from './config.js';
import { decodePage, encodePage } from './page-value.js';
import type { PageStore } from './page-store.js';
import type { Sequence } from './sequence.js';
import { KeyChain } from './token-log.js';

/** By which name pages are found again, and where they are kept. */
export interface PrefixOptions {
  /**
   * Names the model, and all else that keys and values depend on beside the tokens and the cache's own options: weights, RoPE,
   * adapters. Pages of another name are not found.
   */
  readonly model: string;
  /** Where pages go when the cache has no more room for them, and come back from. */
  readonly store?: PageStore;
  /** Milliseconds that the store has for one page. Default 2,000. */
  readonly storeTimeout?: number;
}

const prefixNames: OptionNames<PrefixOptions> = { model: true, store: true, storeTimeout: true };

/** Pages, since the cache was made. */
export interface PrefixCounters {
  /** That `matchPrefix` has found, those from the store included; and full pages that it looked for in vain. */
  readonly hits: number;
  /** Full pages that `matchPrefix` looked for and did not find. */
  readonly misses: number;
  /** That had to make room for others. */
  readonly evictions: number;
  /** That went to the store, and came from there. */
  readonly stored: number;
  /** That came from the store. */
  readonly fetched: number;
}

/** What `matchPrefix` found. */
export interface PrefixMatch {
  /** A new one, which holds the tokens that were found: give its next step the rest. */
  readonly sequence: Sequence;
  /** How many those are: whole pages, and never all, since a model has to see one token to say what comes next. */
  readonly length: number;
}

/** A timer that is set to more goes off at once. */
const MOST_MILLISECONDS = 2 ** 31 - 1;
/** Pages that are asked for at a time. */
const FETCHES_AT_ONCE = 4;
/** Pages on their way to the store, at most: behind a slow one they would take up memory without end. */
const MOST_ON_THEIR_WAY = 256;

/** All of a layer that the contents of its pages depend on, and those of later layers. */
function layerOrigin({ layout: { kvHeads, headDim, k, v }, queryHeads, recipe, kScale, vScale, attention }: Layer): object {
  const bits = (values: Float32Array | undefined): number[] | undefined => values && Array.from(new Uint32Array(values.slice().buffer));
  const side = ({ format, granularity, groupSize }: Layer['layout']['k']): object => ({ format, granularity, groupSize });
  const { sinks, alibiSlopes, ...rest } = attention;
  return { kvHeads, headDim, queryHeads, k: side(k), v: side(v), recipe, kScale: bits(kScale), vScale: bits(vScale), ...rest, sinks: bits(sinks), alibiSlopes: bits(alibiSlopes) };
}

/** @throws TypeError or RangeError naming the option that does not fit */
export function checkPrefix(prefix: PrefixOptions, { contiguous, layers, residual }: Pick<ResolvedCache, 'contiguous' | 'layers' | 'residual'>): void {
  if (typeof prefix !== 'object' || prefix === null) throw new TypeError(`"prefix" expected { model }, got ${describe(prefix)}`);
  checkOptions(prefix, 'prefix', prefixNames, 'prefix.');
  const { model, store, storeTimeout = 2000 } = prefix;
  if (typeof model !== 'string' || model === '') throw new TypeError(`"prefix.model" expected a name, got ${describe(model)}`);
  for (const method of ['get', 'put', 'has'] as const) {
    if (store !== undefined && typeof store?.[method] !== 'function') throw new TypeError(`"prefix.store" expected get, put and has, got ${describe(store)} without ${method}`);
  }
  checkInteger(storeTimeout, 'prefix.storeTimeout', 1, MOST_MILLISECONDS);
  if (contiguous) throw new TypeError('"prefix" expected layout paged: a page of a contiguous cache is a whole sequence, and never full');
  if (residual) throw new TypeError('"prefix" expected a cache without "residual": what is shared is quantized, where the sequence itself would have kept it as it came');
  if (layers.some(({ ring }) => ring)) throw new TypeError('"prefix" expected layers without "slidingWindow": a ring overwrites the pages that would be shared; fork the sequence instead');
}

/** Rejects when time is up. */
async function within<T>(milliseconds: number, answer: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${milliseconds} ms`)), milliseconds);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The pages that a prefix is looked for in, as they are now. */
export interface PrefixPages {
  readonly pool: BlockPool;
  /** Of each layer. */
  readonly pages: readonly Pages[];
}

export class PrefixCache {
  readonly chain: KeyChain;
  readonly #store: PageStore | undefined;
  readonly #timeout: number;
  readonly #counters = { hits: 0, misses: 0, evictions: 0, stored: 0, fetched: 0 };
  /** Keys of pages that the store has. */
  readonly #known = new Set<string>();
  /** Keys under which the store has something else. */
  readonly #spoiled = new Set<string>();
  readonly #onTheirWay = new Set<Promise<unknown>>();
  /** Pages on their way, and those that the store has not answered for in time: it may hold them still. */
  #unanswered = 0;

  constructor({ model, store, storeTimeout = 2000 }: PrefixOptions, { blockSize, layers }: Pick<ResolvedCache, 'blockSize' | 'layers'>) {
    this.chain = new KeyChain(JSON.stringify(['fp8-kv prefix 1', model, blockSize, layers.map(layerOrigin)]), blockSize);
    this.#store = store;
    this.#timeout = storeTimeout;
  }

  get counters(): PrefixCounters {
    return { ...this.#counters };
  }

  /** The keys of the pages that a match may find. */
  keysOf(ids: ArrayLike<number>): string[] {
    return this.chain.keys(ids, Math.max(0, Math.floor((ids.length - 1) / this.chain.blockSize)));
  }

  /** Pages of the cache that have these keys, as far as there are any without a gap; each has one owner more. */
  find(keys: readonly string[], into: PrefixPages): number[] {
    const found: number[] = [];
    for (const key of keys) if (!this.#share(key, found, into)) break;
    return found;
  }

  count(found: number, keys: readonly string[]): void {
    this.#counters.hits += found;
    this.#counters.misses += keys.length - found;
  }

  /** Adds to `found` what the store has of the pages behind it. It may stop early: what is missing is computed. */
  async fetch(keys: readonly string[], found: number[], into: PrefixPages): Promise<void> {
    const store = this.#store;
    if (store === undefined) return;
    while (found.length < keys.length) {
      const batch = keys.slice(found.length, found.length + FETCHES_AT_ONCE);
      const values = await Promise.all(batch.map((key) => this.#get(store, key)));
      for (const [i, key] of batch.entries()) if (!(await this.#take(key, values[i], found, into))) return;
    }
  }

  /** What the store has of a key; undefined where that is nothing, or cannot be had. */
  async #get(store: PageStore, key: string): Promise<Uint8Array | undefined> {
    try {
      return (await within(this.#timeout, store.get(key))) ?? undefined;
    } catch (error) {
      warn(`the page store did not give page ${key}, which is computed instead: ${reasonOf(error)}`);
      return undefined;
    }
  }

  async #decode(key: string, value: Uint8Array, { pages }: PrefixPages): Promise<readonly NhdTensors[] | undefined> {
    try {
      return await decodePage(value, key, pages.map(({ layout }) => layout));
    } catch (error) {
      this.#spoiled.add(key);
      warn(`the page store gave something else for page ${key}, which is computed instead: ${reasonOf(error)}`);
      return undefined;
    }
  }

  /** The page of the cache, where it has one. */
  #share(key: string, found: number[], { pool }: PrefixPages): boolean {
    const page = pool.find(key);
    if (page === undefined) return false;
    pool.share(page);
    found.push(page);
    return true;
  }

  /** The page of the cache, which may have it behind one that it lacks, or that of the store, put into the cache. */
  async #take(key: string, value: Uint8Array | undefined, found: number[], into: PrefixPages): Promise<boolean> {
    if (this.#share(key, found, into)) return true;
    const tensors = value === undefined ? undefined : await this.#decode(key, value, into);
    if (tensors === undefined) return false;
    // Another match may have brought it meanwhile.
    if (this.#share(key, found, into)) return true;
    const { pool, pages } = into;
    if (pool.free === 0) return false;
    const page = pool.take();
    found.push(page);
    await Promise.all(pages.map((layer, index) => layer.import(tensors[index], page)));
    pool.keep(page, key);
    this.#known.add(key);
    this.#counters.fetched++;
    return true;
  }

  /** A page makes room for another: it goes to the store, where there is one that does not have it. */
  evicted(page: number, key: string, pages: readonly Pages[]): void {
    this.#counters.evictions++;
    if (this.#store === undefined || this.#known.delete(key)) return;
    if (this.#unanswered >= MOST_ON_THEIR_WAY) {
      warn(`page ${key} is not stored: ${MOST_ON_THEIR_WAY} pages are on their way to the page store already`);
      return;
    }
    void this.#put(this.#store, key, readPage(pages, page));
  }

  /** @returns whether it is there */
  #put(store: PageStore, key: string, tensors: Promise<readonly NhdTensors[]>): Promise<boolean> {
    const done = this.#send(store, key, tensors);
    this.#onTheirWay.add(done);
    return done.finally(() => this.#onTheirWay.delete(done));
  }

  async #send(store: PageStore, key: string, tensors: Promise<readonly NhdTensors[]>): Promise<boolean> {
    const answered = (): void => void this.#unanswered--;
    let answer: Promise<void> | undefined;
    this.#unanswered++;
    try {
      const value = await encodePage(key, await tensors);
      answer = store.put(key, value);
      await within(this.#timeout, answer);
      this.#counters.stored++;
      this.#spoiled.delete(key);
      return true;
    } catch (error) {
      warn(`the page store did not take page ${key}: ${reasonOf(error)}`);
      return false;
    } finally {
      void Promise.resolve(answer).then(answered, answered);
    }
  }

  /** Where the store does not say, it gets the page: if it is not well, a warning comes of that. */
  async #has(store: PageStore, key: string): Promise<boolean> {
    if (this.#spoiled.has(key)) return false;
    try {
      return await within(this.#timeout, store.has(key));
    } catch {
      return false;
    }
  }

  /** Stores the pages that have keys and are not there. @returns how many went */
  async store(keys: readonly string[], blocks: readonly number[], { pages }: PrefixPages): Promise<number> {
    const store = this.#store;
    if (store === undefined) throw new TypeError('"prefix.store" expected a store to put pages into, got undefined');
    let went = 0;
    for (const [index, key] of keys.entries()) {
      const there = await this.#has(store, key);
      if (!there && !(await this.#put(store, key, readPage(pages, blocks[index])))) break;
      if (!there) went++;
      this.#known.add(key);
    }
    return went;
  }

  /** Once all pages that are on their way to the store have got there, or have not. */
  async settled(): Promise<void> {
    await Promise.all(this.#onTheirWay);
  }
}

/** A page of all layers, as it is at the time of the call. What goes wrong comes through the promise: a step may be under way. */
async function readPage(pages: readonly Pages[], page: number): Promise<readonly NhdTensors[]> {
  return Promise.all(pages.map((layer) => layer.export(page, 1)));
}
