import { attendParts } from '../attend-parts.js';
import type { AppendStatus, AttendCall, AttendResult, Backend, OutDtype, Pages, RequantizeCall } from '../backend.js';
import { floatDtypeOf, type FloatArray, type FloatDtype } from '../formats.js';
import { checkInteger } from '../layout.js';
import { checkOptions } from '../options.js';
import type { WebgpuBackend } from '../webgpu/backend.js';
import type { GpuTensor } from '../webgpu/tensor.js';
import { checkRingShows } from './config.js';
import type { GroupReservation } from './groups.js';
import { flushOf, type Flush } from './flush.js';
import { showAppend, showQuery, type CacheObserver } from './observer.js';
import { readRows, type Rows } from './rows.js';
import type { Sequence, SequenceState } from './sequence.js';
import { appendNames, attendNames, type StepAppendOptions, type StepAttendOptions, type StepRecordOptions } from './step-options.js';
import type { LayerStores, Stores } from './stores.js';
import type { PartTables, StepTables, TableStore } from './tables.js';
import type { TokenIds } from './token-log.js';

/** A sequence's part in a step. */
export interface StepEntry {
  /** Of the same cache; in a step at most once. */
  readonly sequence: Sequence;
  /**
   * New tokens: how many, or their ids (integers below 2^32), by which `matchPrefix` finds them again. 0, or none, is allowed
   * and gives no rows.
   */
  readonly tokens: number | TokenIds;
}

/** @internal what a step has reserved for one sequence */
export interface Reservation {
  readonly sequence: Sequence;
  readonly tokens: number;
  readonly ids: TokenIds | undefined;
  /** By number of the cache's groups of layers. */
  readonly groups: readonly GroupReservation[];
  /** Of the sequence once the step is committed. */
  readonly due: boolean;
}

/** @internal what a step needs of its cache */
export interface StepCache extends Stores {
  readonly backend: Backend;
  readonly tableStore: TableStore;
  /** Those attached at the time of a call see what it is given. */
  readonly observers: readonly CacheObserver[];
  /** A sequence has new full pages: from the given one on. */
  keep(sequence: Sequence, firstPage: number): void;
}

/**
 * New tokens of some sequences on their way through the layers. Made by `cache.begin()`, ended by `commit()` or
 * `abort()`; until then the sequences are as they were.
 */
export class Step {
  readonly #cache: StepCache;
  readonly #reservations: readonly Reservation[];
  readonly #tables: StepTables;
  readonly #flush: Flush | undefined;
  /** Of each layer, the calls that were taken. */
  readonly #appended: number[];
  #written = false;
  #announced = false;
  #open = true;

  /** @internal use `cache.begin` */
  constructor(cache: StepCache, reservations: readonly Reservation[]) {
    this.#cache = cache;
    this.#reservations = reservations;
    this.#tables = cache.tableStore.take(reservations);
    this.#flush = flushOf(cache.groups, reservations);
    this.#appended = cache.layers.map(() => 0);
  }

  /** New tokens of all sequences: the rows of key, value and q, in the order of `begin`. */
  get tokens(): number {
    return this.#tables.groups[0].slotMapping.length;
  }

  #assertOpen(): void {
    if (!this.#open) throw new Error('the step expected to be open, got one that was committed or aborted');
  }

  #layer(layer: number): LayerStores {
    const { layers } = this.#cache;
    return layers[checkInteger(layer, 'layer', 0, layers.length - 1)];
  }

  /** With the first layer's call, so that a GPU takes all tables at once, and not each where it is needed. */
  #announceTables(): void {
    const { backend } = this.#cache;
    if (this.#announced || !backend.expectTables) return;
    this.#announced = true;
    const tables = [this.#tables.cuSeqlensQ];
    for (const { slotMapping, parts } of this.#tables.groups) {
      tables.push(slotMapping);
      for (const { blockTable, seqUsedK } of parts) tables.push(blockTable, seqUsedK);
    }
    backend.expectTables(tables);
  }

  /** Tokens that leave the residual of a layer, on their way into its pages. */
  #flushOf({ codes, residual }: LayerStores): RequantizeCall | undefined {
    if (residual === undefined || this.#flush === undefined) return undefined;
    const { recipe, kScale, vScale } = codes;
    return { from: residual.pages, fromPages: this.#flush.fromPages, pages: codes.pages, slotMapping: this.#flush.slotMapping(codes.group), recipe, kScale, vScale };
  }

  /**
   * Quantizes the step's keys and values into a layer's pages. Where that gives a promise, await it: what is wrong comes
   * through it, also the loss of a GPU device.
   * @param layer index of the layer
   * @param key [tokens, kvHeads, headDim], f32, or f16/bf16 bits with `dtype` stated
   * @param value the same
   * @throws TypeError or RangeError naming what does not fit; nothing is written then
   */
  append(layer: number, key: FloatArray, value: FloatArray, options: StepAppendOptions = {}): AppendStatus | Promise<AppendStatus> {
    this.#assertOpen();
    const stores = this.#layer(layer);
    checkOptions(options, 'options', appendNames);
    this.#announceTables();
    const status = this.#append(stores, key, value, options.dtype);
    this.#appended[layer]++;
    this.#written = true;
    const { observers } = this.#cache;
    if (observers.length > 0) showAppend(observers, layer, key, value, options);
    if (!(status instanceof Promise)) return status;
    // A call that is refused takes nothing back of those before it.
    return status.catch((error: unknown) => {
      this.#appended[layer]--;
      throw error;
    });
  }

  /** A layer without a residual has one call to make, and it makes no garbage. */
  #append(stores: LayerStores, key: FloatArray, value: FloatArray, dtype: FloatDtype | undefined): AppendStatus | Promise<AppendStatus> {
    const { backend } = this.#cache;
    const { codes, residual } = stores;
    const { pages, recipe, kScale, vScale } = codes;
    const { slotMapping } = this.#tables.groups[codes.group];
    const status = backend.append({ pages, key, value, dtype, slotMapping, recipe, kScale, vScale });
    if (residual === undefined) return status;
    const statuses = [status, backend.append({ pages: residual.pages, key, value, dtype, slotMapping: this.#tables.groups[residual.group].slotMapping })];
    const flush = this.#flushOf(stores);
    if (flush !== undefined) statuses.push(backend.requantize(flush));
    return statuses.some((each) => each instanceof Promise) ? Promise.all(statuses).then((all) => joined(all, this.tokens)) : joined(statuses as AppendStatus[], this.tokens);
  }

  /**
   * Attention of the step's queries over each sequence's tokens, the new ones included.
   * @param layer index of the layer, which must have been appended to
   * @param q [tokens, queryHeads, headDim], f32, or f16/bf16 bits with `dtype` stated
   * @returns out [tokens, queryHeads, headDim] of `outDtype`, and lse [tokens, queryHeads]
   * @throws TypeError or RangeError naming what does not fit; outDtype f16 is refused in a layer with sinkTokens or a
   * residual, as what its places give is joined in f32
   */
  async attend<D extends OutDtype = 'f32'>(layer: number, q: FloatArray, options: StepAttendOptions<D> = {}): Promise<AttendResult<D>> {
    return this.#attend(layer, q, options);
  }

  /**
   * As {@link attend}, at once.
   * @throws TypeError on a backend that cannot: one with threads
   */
  attendSync<D extends OutDtype = 'f32'>(layer: number, q: FloatArray, options: StepAttendOptions<D> = {}): AttendResult<D> {
    const { backend } = this.#cache;
    if (!backend.synchronous) throw new TypeError(`"attendSync" expected a backend that answers at once, got one (${backend.kind}) that gives promises: use attend`);
    return this.#attend(layer, q, options) as AttendResult<D>;
  }

  /** The GPU backend, or an error. */
  #recorder(): WebgpuBackend {
    const { backend } = this.#cache;
    if (backend.kind !== 'webgpu') throw new TypeError(`a step expected a WebGPU backend to record with, got one of kind ${backend.kind}`);
    return backend as WebgpuBackend;
  }

  /** What lies in GPU buffers cannot be shown to anyone. */
  #assertUnobserved(method: string, instead: string): void {
    if (this.#cache.observers.length === 0) return;
    throw new TypeError(`"${method}" expected a cache with nothing attached, which could not see what lies on the GPU: detach it, or use ${instead}`);
  }

  /**
   * As {@link append}, into the caller's encoder, which must be submitted before another step of the cache begins: that may
   * copy a page which a fork shares, at once. `cache.warm()`
   * compiles what is needed.
   * @throws TypeError on a backend other than WebGPU, or where something is attached to the cache; as `backend.recordAppend`
   */
  recordAppend(encoder: GPUCommandEncoder, layer: number, key: GpuTensor, value: GpuTensor, options: StepAppendOptions = {}): void {
    this.#assertOpen();
    const stores = this.#layer(layer);
    checkOptions(options, 'options', appendNames);
    const { dtype } = options;
    this.#assertUnobserved('recordAppend', 'append');
    const { codes, residual } = stores;
    const { pages, recipe, kScale, vScale } = codes;
    const { groups } = this.#tables;
    const recorder = this.#recorder();
    this.#announceTables();
    recorder.recordAppend(encoder, { pages, key, value, dtype, slotMapping: groups[codes.group].slotMapping, recipe, kScale, vScale });
    if (residual) recorder.recordAppend(encoder, { pages: residual.pages, key, value, dtype, slotMapping: groups[residual.group].slotMapping });
    const flush = this.#flushOf(stores);
    if (flush) recorder.recordRequantize(encoder, flush);
    this.#appended[layer]++;
    this.#written = true;
  }

  /**
   * As {@link attend}, into the caller's encoder: `out` and `lse` are written when that is executed.
   * @throws TypeError on a backend other than WebGPU, or where something is attached to the cache; as `backend.recordAttend`
   */
  recordAttend(encoder: GPUCommandEncoder, layer: number, q: GpuTensor, options: StepRecordOptions): void {
    this.#assertOpen();
    const stores = this.#layer(layer);
    checkOptions(options, 'options', attendNames, '', '{ out }');
    this.#assertUnobserved('recordAttend', 'attend');
    if (!this.#appended[layer]) throw new Error(`"recordAttend" expected layer ${layer} to have been appended to in this step`);
    this.#checkOptions(stores, options);
    const { attention, queryHeads } = stores;
    const { cuSeqlensQ } = this.#tables;
    const {
      causal = attention.causal, windowLeft = attention.windowLeft, windowRight = attention.windowRight,
      softcap = attention.softcap, sinks = attention.sinks, alibiSlopes = attention.alibiSlopes, softmaxScale = attention.softmaxScale,
      kDescale, vDescale, dtype, outDtype, out, lse,
    } = options;
    const parts = this.#partsOf(stores);
    const calls = parts.map(({ pages, tables, given, sinks: isFirst }, index) => ({
      causal, windowLeft: isFirst ? -1 : windowLeft, windowRight, softcap, sinks: index === parts.length - 1 ? sinks : undefined, alibiSlopes, softmaxScale,
      dtype, outDtype, out, lse, q, queryHeads, pages, cuSeqlensQ, blockTable: tables.blockTable, seqUsedK: tables.seqUsedK, contextLens: tables.goesOn ? tables.contextLens : undefined,
      kDescale: given ? kDescale : undefined, vDescale: given ? vDescale : undefined,
      kScale: kDescale === undefined ? given?.kScale : undefined,
      vScale: vDescale === undefined ? given?.vScale : undefined,
    }));
    this.#recorder().recordAttendParts(encoder, calls);
  }

  /** What a layer's calls may not ask for, however few tokens there are yet. */
  #checkOptions({ codes, residual }: LayerStores, options: Pick<StepAttendOptions<OutDtype>, 'causal' | 'windowLeft' | 'windowRight' | 'outDtype'>): void {
    const { kind, sinkTokens } = this.#cache.groups[codes.group];
    if (kind === 'ring') checkRingShows(options);
    if ((residual !== undefined || sinkTokens > 0) && (options.outDtype ?? 'f32') !== 'f32') {
      throw new TypeError(`"outDtype" expected f32 in a layer with "residual" or "sinkTokens", whose tokens lie in several places, got ${options.outDtype}`);
    }
  }

  /** Where the keys of a layer are: never nowhere, so that rows which see nothing are given as such. */
  #partsOf({ codes, residual }: LayerStores): KeyPart[] {
    const parts: KeyPart[] = [];
    const { groups } = this.#tables;
    const ofCodes = groups[codes.group].parts;
    for (const tables of ofCodes) if (tables.hasKeys) parts.push({ pages: codes.pages, tables, given: codes, sinks: tables.sinks });
    if (residual) for (const tables of groups[residual.group].parts) if (tables.hasKeys) parts.push({ pages: residual.pages, tables, given: undefined, sinks: false });
    return parts.length > 0 ? parts : [{ pages: codes.pages, tables: ofCodes[ofCodes.length - 1], given: codes, sinks: false }];
  }

  #attend<D extends OutDtype>(layer: number, q: FloatArray, options: StepAttendOptions<D>): AttendResult<D> | Promise<AttendResult<D>> {
    this.#assertOpen();
    const stores = this.#layer(layer);
    const { attention, queryHeads, headDim } = stores;
    checkOptions(options, 'options', attendNames);
    if (!this.#appended[layer]) throw new Error(`"attend" expected layer ${layer} to have been appended to in this step`);
    this.#checkOptions(stores, options);
    floatDtypeOf(q, options.dtype, 'q');
    const expected = this.tokens * queryHeads * headDim;
    if (q.length !== expected) throw new RangeError(`"q" expected ${this.tokens} tokens × ${queryHeads} heads × ${headDim} = ${expected} elements, got ${q.length}`);
    const { cuSeqlensQ } = this.#tables;
    const {
      causal = attention.causal, windowLeft = attention.windowLeft, windowRight = attention.windowRight,
      softcap = attention.softcap, sinks = attention.sinks, alibiSlopes = attention.alibiSlopes, softmaxScale = attention.softmaxScale,
      kDescale, vDescale, dtype, outDtype, out, lse,
    } = options;
    const parts = this.#partsOf(stores);
    const calls = parts.map(({ pages, tables, given, sinks: isFirst }, index): AttendCall<D> => ({
      causal, windowLeft: isFirst ? -1 : windowLeft, windowRight, softcap, sinks: index === parts.length - 1 ? sinks : undefined, alibiSlopes, softmaxScale,
      dtype, outDtype, out, lse, q, pages, cuSeqlensQ, blockTable: tables.blockTable, seqUsedK: tables.seqUsedK, contextLens: tables.goesOn ? tables.contextLens : undefined,
      kDescale: given ? kDescale : undefined, vDescale: given ? vDescale : undefined,
      kScale: kDescale === undefined ? given?.kScale : undefined,
      vScale: vDescale === undefined ? given?.vScale : undefined,
    }));
    const { backend, observers } = this.#cache;
    if (observers.length === 0) return attendParts(backend, calls);
    // Results may lie where q does.
    const seen = out?.buffer === q.buffer || lse?.buffer === q.buffer ? q.slice() : q;
    const result = attendParts(backend, calls);
    showQuery(observers, layer, seen, options);
    return result;
  }

  /** @internal all tokens of the step's first sequence in a layer that was appended to and keeps all, on a backend that answers at once */
  readRows(layer: number): Rows {
    return readRows(this.#layer(layer), this.#reservations[0].groups.map(({ after }) => after));
  }

  /**
   * Makes the new tokens part of their sequences.
   * @throws Error when a layer was not appended to: its keys and values would be missing. The step stays open.
   */
  commit(): void {
    this.#assertOpen();
    if (this.tokens > 0 && this.#appended.includes(0)) {
      const missing = this.#appended.flatMap((calls, layer) => (calls > 0 ? [] : [layer]));
      throw new Error(`"commit" expected every layer to have been appended to, missing ${missing.join(', ')}`);
    }
    this.#end();
    const { groups } = this.#cache;
    for (const { sequence, tokens, ids, groups: reserved, due } of this.#reservations) {
      for (let g = 0; g < groups.length; g++) groups[g].commit(reserved[g]);
      const firstPage = sequence.tokens.extend(sequence.length, ids);
      sequence.leaveStep({ length: sequence.length + tokens, held: reserved.map(({ after }) => after), due });
      this.#cache.keep(sequence, firstPage);
    }
  }

  #end(): void {
    this.#open = false;
    const { backend, tableStore } = this.#cache;
    // A backend that answers later may still have to read them.
    if (backend.synchronous) tableStore.give(this.#tables);
  }

  /** Gives back what was reserved: the sequences are as before. Does nothing once the step has ended. */
  abort(): void {
    if (!this.#open) return;
    this.#end();
    const { groups } = this.#cache;
    for (const { sequence, groups: reserved } of this.#reservations) {
      const held = reserved.map((reservation, g) => groups[g].abort(reservation, this.#written));
      sequence.leaveStep({ ...sequence.state, held } satisfies SequenceState);
    }
  }

  /** Aborts, unless the step has ended. */
  [Symbol.dispose](): void {
    this.abort();
  }
}

/** Keys of a layer that one call reads. */
interface KeyPart {
  readonly pages: Pages;
  readonly tables: PartTables;
  /** What has the scales that calls are given; absent where keys are not quantized. */
  readonly given: Pick<LayerStores['codes'], 'kScale' | 'vScale'> | undefined;
  readonly sinks: boolean;
}

/** What appends of one step to several places say together: each token was stored in one of them. */
function joined(statuses: readonly AppendStatus[], tokens: number): AppendStatus {
  const counted = statuses.filter(({ nan }) => nan !== undefined);
  const status = { written: tokens, skipped: 0 };
  return counted.length === 0 ? status : { ...status, nan: counted.reduce((sum, { nan }) => sum + nan!, 0) };
}
