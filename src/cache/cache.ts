import type { Backend, Pages } from '../backend.js';
import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';
import { checkBackend, checkOptions } from '../options.js';
import type { WarmOptions, WebgpuBackend } from '../webgpu/backend.js';
import { BlockPool } from './blocks.js';
import { checkOrigin, originOf, readCheckpoint, writeCheckpoint, type Checkpoint, type Origin, type RestoreReport } from './checkpoint.js';
import { resolveCache, type KvCacheOptions, type ResolvedCache } from './config.js';
import { holdsNothing, PageGroup } from './groups.js';
import { memoryOf, type MemoryReport } from './memory.js';
import { attachTo, type CacheObserver } from './observer.js';
import { PrefixCache, type PrefixCounters, type PrefixMatch, type PrefixPages } from './prefix.js';
import { checkEntries, checkIds, checkLengths, reserve } from './reserve.js';
import { Sequence, type SequenceState } from './sequence.js';
import { Step, type Reservation, type StepCache, type StepEntry } from './step.js';
import type { CacheParts } from './snapshot-layers.js';
import { createPages, layersOver, planStores, type StorePlans } from './stores.js';
import { TableStore } from './tables.js';
import { TokenLog, type KeyChain, type TokenIds } from './token-log.js';

/**
 * A paged key/value cache of all layers of a model, for any number of sequences.
 *
 * A page index means the same tokens in every layer that keeps the same ones: a sequence has one list of pages for them. Pages
 * are shared between forks and copied when one of them writes. In a contiguous cache that list is one page, which is as large
 * as a sequence can get.
 */
export class KvCache {
  /** Tokens per page. */
  readonly blockSize: number;
  /** Tokens that fit, all sequences together, in layers that keep all; of a contiguous cache, in all its sequences. */
  readonly capacity: number;
  /** @internal sequences that were not freed */
  readonly live = new Set<Sequence>();
  readonly #prefix: PrefixCache | undefined;
  readonly #options: ResolvedCache;
  readonly #plans: StorePlans;
  readonly #origin: Origin;
  readonly #observers: CacheObserver[] = [];
  #inside: StepCache;
  /** By number of the store. */
  #pages: readonly Pages[];
  /** How many are busy with pages that no step knows of: on their way from or to a store, or a file. */
  #arriving = 0;
  #disposed = false;

  /**
   * @param backend stays the caller's: the cache does not dispose of it
   * @throws TypeError or RangeError naming the option that does not fit
   */
  constructor(backend: Backend, options: KvCacheOptions) {
    checkBackend(backend);
    const resolved = resolveCache(options);
    this.#options = resolved;
    this.blockSize = resolved.blockSize;
    this.capacity = resolved.pageCount * resolved.blockSize;
    this.#plans = planStores(resolved);
    this.#pages = createPages(backend, this.#plans);
    this.#prefix = resolved.prefix && new PrefixCache(resolved.prefix, resolved);
    this.#inside = this.#over(backend, this.#pages, []);
    this.#origin = originOf(this.#plans, this.capacity);
  }

  /** @param sequences whose pages they are; the others are free */
  #over(backend: Backend, pages: readonly Pages[], sequences: readonly Sequence[]): StepCache {
    const poolOf = (count: number, g: number): BlockPool =>
      new BlockPool(count, sequences.map(({ state }) => state.held[g].pages), (page, key) => this.#prefix?.evicted(page, key, this.#pages));
    const groups = this.#plans.groups.map((shape, g) => new PageGroup(shape, poolOf(shape.pageCount, g)));
    return {
      backend, groups, layers: layersOver(this.#plans, this.#options.layers, pages), tableStore: new TableStore(groups), observers: this.#observers,
      keep: (sequence, firstPage) => this.#keep(sequence, firstPage),
    };
  }

  /** @internal */
  get keyChain(): KeyChain | undefined {
    return this.#prefix?.chain;
  }

  /** @internal by their numbers */
  get groups(): readonly PageGroup[] {
    return this.#inside.groups;
  }

  /** @internal what snapshots are made of */
  get parts(): CacheParts {
    this.#assertInUse();
    return { options: this.#options, plans: this.#plans, groups: this.groups, pages: this.#pages };
  }

  /** @internal pages are read or written beside all steps: they stay until the function that this gives was called */
  occupy(): () => void {
    this.#assertInUse();
    this.#arriving++;
    return () => void this.#arriving--;
  }

  /** @internal a sequence that holds pages already, and the keys of its full ones */
  adopt(state: SequenceState, keys: readonly string[]): Sequence {
    const sequence = new Sequence(this, state, new TokenLog(this.keyChain, keys));
    this.#keep(sequence, 0);
    return sequence;
  }

  /** Number of layers. */
  get layers(): number {
    return this.#inside.layers.length;
  }

  /** Pages that no sequence and no open step holds, of the layers that keep the same tokens as the first. */
  get freePages(): number {
    return this.groups[0].pool.free;
  }

  /**
   * Tokens of one sequence that a layer keeps at most: of a ring the capacity and sinkTokens, else as many as there is room for.
   * @throws RangeError for a layer that there is not
   */
  tokensKept(layer: number): number {
    const { ring } = this.#options.layers[checkInteger(layer, 'layer', 0, this.layers - 1)];
    return ring ? ring.sinkTokens + ring.capacity : Math.min(this.#options.context, this.capacity);
  }

  /** What the cache takes, and what it would take unquantized: see {@link MemoryReport}. */
  get memory(): MemoryReport {
    return memoryOf(this.#plans, this.groups);
  }

  /**
   * Compiles the kernels of all layers where the backend has any to compile, so that none is compiled in a decode loop.
   * @param options.maxSeqlenQ new tokens of a sequence in one step, at most. Default: any number
   */
  async warm(options: Pick<WarmOptions, 'maxSeqlenQ'> = {}): Promise<void> {
    checkOptions(options, 'options', { maxSeqlenQ: true });
    const { backend, layers } = this.#inside;
    if (backend.kind !== 'webgpu') return;
    const gpu = backend as WebgpuBackend;
    const mergeStates = this.groups.some(({ kind, sinkTokens }) => kind === 'residual' || sinkTokens > 0);
    await Promise.all(this.#plans.stores.map(({ layer }, at) => gpu.warm(this.#pages[at].layout, { ...options, queryHeads: layers[layer].queryHeads, mergeStates })));
  }

  /**
   * Shows a {@link Calibration} from now on the keys and values of all appends, and, if it asks for them, the queries of all attends:
   * those that the backend took, also of steps that are aborted later. Attach it to a cache of dtype f32, or of f16 if that is what the
   * model has: of one that is quantized, deeper layers' keys and values have the error of those before in them.
   *
   * Steps cannot record into encoders meanwhile, as what is in GPU buffers cannot be shown.
   * @returns what detaches it
   * @throws TypeError for what is no calibration or is attached already; RangeError for one that was made for other layers
   */
  attach(observer: CacheObserver): () => void {
    this.#assertInUse();
    return attachTo(this.#observers, observer, this.#options.layers);
  }

  /**
   * A sequence without tokens.
   * @throws TypeError once the cache is disposed of
   */
  createSequence(): Sequence {
    this.#assertInUse();
    return new Sequence(this);
  }

  /** The pages of one layer, for level-1 operations, import and export; after a `restore` they are others. */
  pages(layer: number): Pages {
    return this.#inside.layers[checkInteger(layer, 'layer', 0, this.layers - 1)].codes.pages;
  }

  /**
   * Starts a step and reserves pages for its tokens in every layer: the only place that can run out.
   * @throws OutOfPagesError, TypeError or RangeError; nothing is reserved or written then
   */
  begin(entries: readonly StepEntry[]): Step {
    this.#assertInUse();
    const checked = checkEntries(entries, this);
    checkLengths(checked, this.#options);
    const { groups, layers } = this.#inside;
    const reservations = reserve(checked, groups, this.#options);
    const step = new Step(this.#inside, reservations);
    try {
      const copies = reservations.some((reservation) => reservation.groups.some((group) => group.copies.length > 0));
      for (const { codes, residual } of copies ? layers : []) {
        for (const store of [codes, residual]) if (store) copyPages(store.pages, reservations, store.group);
      }
    } catch (error) {
      step.abort();
      throw error;
    }
    return step;
  }

  /** A sequence's full pages get their keys, from the given page on. */
  #keep(sequence: Sequence, firstPage: number): void {
    const { keys } = sequence.tokens;
    for (let page = firstPage; page < keys.length; page++) this.groups[0].pool.keep(sequence.blocks[page], keys[page]);
  }

  /** The prefixes, or an error. */
  #prefixes(method: string): PrefixCache {
    this.#assertInUse();
    if (!this.#prefix) throw new TypeError(`"${method}" expected a cache that was made with "prefix"`);
    return this.#prefix;
  }

  get #prefixPages(): PrefixPages {
    return { pool: this.groups[0].pool, pages: this.#pages };
  }

  /**
   * A new sequence with as many of these tokens as the cache, or its store, has full pages of: they are not computed again. It
   * finds tokens that steps were given by their ids, as long as their pages are there: also those of sequences that were freed
   * or cut, least recently used ones go first when pages are needed.
   *
   * What a store does not give in time, or gives wrong, counts as not found, and a warning says so.
   * @param tokens ids; all but the last may be found
   * @throws TypeError or RangeError for what are no ids, and where the cache was made without `prefix`; TypeError where it is
   * disposed of meanwhile
   */
  async matchPrefix(tokens: TokenIds): Promise<PrefixMatch> {
    const prefix = this.#prefixes('matchPrefix');
    const keys = prefix.keysOf(checkIds(tokens, 'tokens'));
    const ids = Array.from(tokens);
    const pages = this.#prefixPages;
    const found = prefix.find(keys, pages);
    const release = this.occupy();
    try {
      await prefix.fetch(keys, found, pages);
      this.#assertInUse();
    } catch (error) {
      pages.pool.releaseAll(found);
      throw error;
    } finally {
      release();
    }
    return this.#matched(ids, keys, found);
  }

  /** As {@link matchPrefix}, at once: it finds what is in the cache, and asks no store. */
  matchPrefixSync(tokens: TokenIds): PrefixMatch {
    const prefix = this.#prefixes('matchPrefixSync');
    const keys = prefix.keysOf(checkIds(tokens, 'tokens'));
    return this.#matched(tokens, keys, prefix.find(keys, this.#prefixPages));
  }

  #matched(ids: TokenIds, keys: readonly string[], pages: readonly number[]): PrefixMatch {
    this.#prefix!.count(pages.length, keys);
    const length = pages.length * this.blockSize;
    const known = new TokenLog(this.keyChain);
    known.extend(0, Array.prototype.slice.call(ids, 0, length));
    const sequence = new Sequence(this, { length, held: [{ pages, floor: 0, end: length }], due: false }, known);
    return { sequence, length };
  }

  /** What `matchPrefix` has found, and what became of pages. */
  get prefixCounters(): PrefixCounters {
    return this.#prefixes('prefixCounters').counters;
  }

  /**
   * Puts a sequence's full pages into the store, as far as their tokens are known and it does not have them: other caches, also of
   * other processes, then find them. Those that have to make room go there by themselves.
   *
   * They go as they are at the time of the call; of what was recorded into encoders, submit all before.
   * @returns how many pages went
   * @throws TypeError for a sequence of another cache, and where the cache has no store; Error while the sequence is in a step
   */
  async storePrefix(sequence: Sequence): Promise<number> {
    const prefix = this.#prefixes('storePrefix');
    if (!(sequence instanceof Sequence) || sequence.cache !== this) throw new TypeError(`"sequence" expected a sequence of this cache, got ${describe(sequence)}`);
    sequence.assertIdle();
    const { pool } = this.groups[0];
    const keys = [...sequence.tokens.keys];
    const blocks = sequence.blocks.slice(0, keys.length);
    const release = this.occupy();
    pool.shareAll(blocks);
    try {
      return await prefix.store(keys, blocks, this.#prefixPages);
    } finally {
      release();
      pool.releaseAll(blocks);
    }
  }

  /** Resolves once all pages that are on their way to the store have got there, or a warning has said that they have not. */
  async settled(): Promise<void> {
    await this.#prefixes('settled').settled();
  }

  /**
   * Reads back what all sequences hold, for {@link restore}. It is what they hold at the time of the call; of what was
   * recorded into encoders, that which was submitted. They may go on meanwhile; but pages that are still being read count as
   * shared, so that steps which write into them copy them first.
   * @throws Error while a step is open, or pages are on their way from or to a store
   */
  async checkpoint(): Promise<Checkpoint> {
    this.#assertAtRest('checkpoint');
    const sequences = [...this.live].map(({ id, state, tokens: { ids } }) => ({ id, state, ids: Array.from(ids) }));
    const { groups } = this;
    const held = groups.map((_, g) => new Set(sequences.flatMap(({ state }) => state.held[g].pages)));
    for (const [g, { pool }] of groups.entries()) pool.shareAll(held[g]);
    try {
      return await readCheckpoint(this.#pages, this.#plans, this.#origin, sequences, held);
    } finally {
      for (const [g, { pool }] of groups.entries()) pool.releaseAll([...held[g]]);
    }
  }

  /**
   * Goes on with new pages on this backend, of any kind, after a `DeviceLostError` or at any time. Sequences become what
   * they were at the checkpoint, bit for bit: also those that were truncated since. Those created since, and without a
   * checkpoint all, become empty. Those freed since stay so.
   *
   * The report says how many tokens each sequence has now and how many are gone: put those through the model again.
   * @param backend stays the caller's, as does the one before
   * @throws TypeError for a checkpoint that is not of this cache, Error while a step is open (`abort` it) or pages are on
   * their way from or to a store, and what the backend throws where it has no room. The cache is as before then.
   */
  async restore(backend: Backend, checkpoint?: Checkpoint): Promise<RestoreReport> {
    this.#assertAtRest('restore');
    checkBackend(backend);
    if (checkpoint !== undefined) checkOrigin(checkpoint, this.#origin);
    const pages = createPages(backend, this.#plans);
    try {
      if (checkpoint) await writeCheckpoint(pages, this.#plans, checkpoint);
      // A GPU says only when it is asked something that it had no memory for them, or has been lost.
      await Promise.all(pages.map((store) => store.export(0, 1)));
      // Much may have happened meanwhile.
      this.#assertAtRest('restore');
    } catch (error) {
      for (const store of pages) store.dispose();
      throw error;
    }
    for (const store of this.#pages) store.dispose();
    this.#pages = pages;
    return this.#resume(backend, checkpoint);
  }

  /** All sequences as they were at the checkpoint, and with that the owners of all pages. */
  #resume(backend: Backend, checkpoint: Checkpoint | undefined): RestoreReport {
    const saved = new Map(checkpoint?.sequences.map((each) => [each.id, each]));
    const nothing: SequenceState = { length: 0, held: this.groups.map(() => holdsNothing), due: false };
    const sequences = [...this.live].map((sequence) => {
      const { state, ids } = saved.get(sequence.id) ?? { state: nothing, ids: [] };
      const lost = Math.max(0, sequence.length - state.length);
      sequence.become(state);
      sequence.tokens.truncate(0);
      sequence.tokens.extend(0, ids);
      return { sequence, length: state.length, lost };
    });
    this.#inside = this.#over(backend, this.#pages, [...this.live]);
    for (const { sequence } of sequences) this.#keep(sequence, 0);
    return { sequences, lost: sequences.reduce((sum, { lost }) => sum + lost, 0) };
  }

  #assertInUse(): void {
    if (this.#disposed) throw new TypeError('"cache" expected to be in use, got one that was disposed of');
  }

  #assertAtRest(action: string): void {
    this.#assertInUse();
    const busy = [...this.live].filter(({ isInStep }) => isInStep).length;
    if (this.#arriving > 0) throw new Error(`"${action}" expected no pages on their way from or to a store or a file, got some: await matchPrefix, storePrefix and snapshots first`);
    if (busy > 0) throw new Error(`"${action}" expected no open step, got ${busy} sequences in one: commit or abort it first`);
  }

  /** Frees the pages of all layers; the backend stays as it is. */
  dispose(): void {
    this.#disposed = true;
    for (const store of this.#pages) store.dispose();
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What steps copy before they write, in the pages of one store. */
function copyPages(pages: Pages, reservations: readonly Reservation[], group: number): void {
  const copies = reservations.flatMap(({ groups }) => groups[group].copies);
  if (copies.length > 0) pages.copyPages(copies.map(([from]) => from), copies.map(([, to]) => to));
}
