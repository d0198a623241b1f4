import type { Backend, Pages } from '../backend.js';
import { OutOfPagesError } from '../errors.js';
import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';
import { BlockPool } from './blocks.js';
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
 * copied when one of them writes.
 */
export class KvCache {
  readonly blockSize: number;
  /** Tokens that fit, all sequences together. */
  readonly capacity: number;
  /** @internal */
  readonly pool: BlockPool;
  readonly #backend: Backend;
  readonly #layers: readonly Layer[];
  readonly #pages: readonly Pages[];
  readonly #pageCount: number;
  readonly #tables: TableStore;

  /**
   * @param backend stays the caller's: the cache does not dispose of it
   * @throws TypeError or RangeError naming the option that does not fit
   */
  constructor(backend: Backend, options: KvCacheOptions) {
    const { layers, pageCount } = resolveCache(options);
    this.#layers = layers;
    this.#pageCount = pageCount;
    this.blockSize = layers[0].layout.blockSize;
    this.capacity = this.#pageCount * this.blockSize;
    this.#backend = backend;
    this.#pages = createAllPages(backend, this.#layers, this.#pageCount);
    this.pool = new BlockPool(this.#pageCount);
    this.#tables = new TableStore(this.blockSize);
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

  /** A sequence without tokens. */
  createSequence(): Sequence {
    return new Sequence(this);
  }

  /** The pages of one layer, for level-1 operations, import and export. */
  pages(layer: number): Pages {
    return this.#pages[checkInteger(layer, 'layer', 0, this.#layers.length - 1)];
  }

  /**
   * Starts a step and reserves pages for its tokens in every layer: the only place that can run out.
   * @throws OutOfPagesError, TypeError or RangeError; nothing is reserved or written then
   */
  begin(entries: readonly StepEntry[]): Step {
    this.#checkEntries(entries);
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

  /** Frees the pages of all layers; the backend stays as it is. */
  dispose(): void {
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
