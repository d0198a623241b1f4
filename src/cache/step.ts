import type { AppendStatus, AttendResult, AttentionOptions, Backend, OutArray, OutDtype, Pages } from '../backend.js';
import type { FloatArray, FloatDtype } from '../formats.js';
import { checkInteger } from '../layout.js';
import type { GivenScale } from '../scale.js';
import type { BlockPool } from './blocks.js';
import type { Layer } from './config.js';
import type { WebgpuBackend } from '../webgpu/backend.js';
import type { RecordAttendCall } from '../webgpu/record.js';
import type { GpuTensor } from '../webgpu/tensor.js';
import type { Sequence } from './sequence.js';
import type { StepTables, TableStore } from './tables.js';

/** A sequence's part in a step. */
export interface StepEntry {
  readonly sequence: Sequence;
  /** New tokens; 0 is allowed and gives no rows. */
  readonly tokens: number;
}

/** @internal what a step has reserved for one sequence */
export interface Reservation extends StepEntry {
  /** The sequence's pages once the step is committed. */
  readonly blocks: readonly number[];
  /** Pages taken for this step: given back by `abort`. */
  readonly taken: readonly number[];
  /** The shared page that a copy has replaced: given back by `commit`. */
  readonly replaced: number | undefined;
}

export interface StepAppendOptions {
  /** Dtype of key and value; needed for Uint16Array. */
  readonly dtype?: FloatDtype;
}

/** Descales of one call, in place of the layer's given scales. */
interface StepDescales {
  /** One number for all, or [sequences, kvHeads] in the order of `begin`; granularities tensor and head. Default: the layer's scale. */
  readonly kDescale?: GivenScale;
  readonly vDescale?: GivenScale;
}

/** Overrides of the layer's attention, and where to put the result. */
export interface StepAttendOptions<D extends OutDtype = 'f32'> extends AttentionOptions, StepDescales {
  /** Dtype of q; needed for Uint16Array. */
  readonly dtype?: FloatDtype;
  /** Default f32. f16 is rounded to the nearest, ties to even. */
  readonly outDtype?: D;
  /** [tokens, queryHeads, headDim] of `outDtype` */
  readonly out?: OutArray<D>;
  /** [tokens, queryHeads] */
  readonly lse?: Float32Array;
}

/** As {@link StepAttendOptions}, with results in GPU buffers. */
export interface StepRecordOptions extends Omit<AttentionOptions, 'sinks' | 'alibiSlopes'>, StepDescales {
  /** Of q. Default f32. */
  readonly dtype?: FloatDtype;
  /** [queryHeads] of f32 */
  readonly sinks?: Float32Array | GpuTensor;
  /** [queryHeads] of f32 */
  readonly alibiSlopes?: RecordAttendCall['alibiSlopes'];
  /** Of out. Default f32. */
  readonly outDtype?: OutDtype;
  /** [tokens, queryHeads, headDim] of `outDtype`; never q itself. */
  readonly out: GpuTensor;
  /** [tokens, queryHeads] of f32. Default: not kept. */
  readonly lse?: GpuTensor;
}

/**
 * New tokens of some sequences on their way through the layers. Made by `cache.begin()`, ended by `commit()` or
 * `abort()`; until then the sequences are as they were.
 */
export class Step {
  readonly #tables: StepTables;
  readonly #appended: boolean[];
  #announced = false;
  #open = true;

  /** @internal use `cache.begin` */
  constructor(
    private readonly backend: Backend,
    private readonly pool: BlockPool,
    private readonly layers: readonly Layer[],
    private readonly pages: readonly Pages[],
    private readonly reservations: readonly Reservation[],
    private readonly tables: TableStore,
  ) {
    this.#tables = tables.take(reservations);
    this.#appended = layers.map(() => false);
  }

  /** New tokens of all sequences: the rows of key, value and q, in the order of `begin`. */
  get tokens(): number {
    return this.#tables.slotMapping.length;
  }

  #assertOpen(): void {
    if (!this.#open) throw new Error('the step expected to be open, got one that was committed or aborted');
  }

  /** With the first layer's call, so that a GPU takes all tables at once, and not each where it is needed. */
  #announceTables(): void {
    if (this.#announced || !this.backend.expectTables) return;
    this.#announced = true;
    const { slotMapping, blockTable, cuSeqlensQ, seqUsedK } = this.#tables;
    this.backend.expectTables([slotMapping, blockTable, cuSeqlensQ, seqUsedK]);
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
    const { recipe, kScale, vScale } = this.layers[checkInteger(layer, 'layer', 0, this.layers.length - 1)];
    const { slotMapping } = this.#tables;
    this.#announceTables();
    const status = this.backend.append({ pages: this.pages[layer], key, value, dtype: options.dtype, slotMapping, recipe, kScale, vScale });
    this.#appended[layer] = true;
    if (!(status instanceof Promise)) return status;
    return status.catch((error: unknown) => {
      this.#appended[layer] = false;
      throw error;
    });
  }

  /**
   * Attention of the step's queries over each sequence's tokens, the new ones included.
   * @param layer index of the layer, which must have been appended to
   * @param q [tokens, queryHeads, headDim], f32, or f16/bf16 bits with `dtype` stated
   * @returns out [tokens, queryHeads, headDim] of `outDtype`, and lse [tokens, queryHeads]
   * @throws TypeError or RangeError naming what does not fit
   */
  async attend<D extends OutDtype = 'f32'>(layer: number, q: FloatArray, options: StepAttendOptions<D> = {}): Promise<AttendResult<D>> {
    return this.#attend(layer, q, options);
  }

  /**
   * As {@link attend}, at once.
   * @throws TypeError on a backend that cannot: one with threads
   */
  attendSync<D extends OutDtype = 'f32'>(layer: number, q: FloatArray, options: StepAttendOptions<D> = {}): AttendResult<D> {
    if (!this.backend.synchronous) throw new TypeError(`"attendSync" expected a backend that answers at once, got one (${this.backend.kind}) that gives promises: use attend`);
    return this.#attend(layer, q, options) as AttendResult<D>;
  }

  /** The GPU backend, or an error. */
  #recorder(): WebgpuBackend {
    if (this.backend.kind !== 'webgpu') throw new TypeError(`a step expected a WebGPU backend to record with, got one of kind ${this.backend.kind}`);
    return this.backend as WebgpuBackend;
  }

  /**
   * As {@link append}, into the caller's encoder, which must be submitted before another step of the cache begins: that may
   * copy a page which a fork shares, at once. `cache.warm()`
   * compiles what is needed.
   * @throws TypeError on a backend other than WebGPU; as `backend.recordAppend`
   */
  recordAppend(encoder: GPUCommandEncoder, layer: number, key: GpuTensor, value: GpuTensor, { dtype }: StepAppendOptions = {}): void {
    this.#assertOpen();
    const { recipe, kScale, vScale } = this.layers[checkInteger(layer, 'layer', 0, this.layers.length - 1)];
    const { slotMapping } = this.#tables;
    const recorder = this.#recorder();
    this.#announceTables();
    recorder.recordAppend(encoder, { pages: this.pages[layer], key, value, dtype, slotMapping, recipe, kScale, vScale });
    this.#appended[layer] = true;
  }

  /**
   * As {@link attend}, into the caller's encoder: `out` and `lse` are written when that is executed.
   * @throws TypeError on a backend other than WebGPU; as `backend.recordAttend`
   */
  recordAttend(encoder: GPUCommandEncoder, layer: number, q: GpuTensor, options: StepRecordOptions): void {
    this.#assertOpen();
    const { attention, queryHeads, kScale, vScale } = this.layers[checkInteger(layer, 'layer', 0, this.layers.length - 1)];
    if (!this.#appended[layer]) throw new Error(`"recordAttend" expected layer ${layer} to have been appended to in this step`);
    const { blockTable, cuSeqlensQ, seqUsedK } = this.#tables;
    const {
      causal = attention.causal, windowLeft = attention.windowLeft, windowRight = attention.windowRight,
      softcap = attention.softcap, sinks = attention.sinks, alibiSlopes = attention.alibiSlopes, softmaxScale = attention.softmaxScale,
      kDescale, vDescale, dtype, outDtype, out, lse,
    } = options;
    this.#recorder().recordAttend(encoder, {
      causal, windowLeft, windowRight, softcap, sinks, alibiSlopes, softmaxScale, dtype, outDtype, out, lse,
      pages: this.pages[layer], q, queryHeads, blockTable, cuSeqlensQ, seqUsedK, kDescale, vDescale,
      kScale: kDescale === undefined ? kScale : undefined,
      vScale: vDescale === undefined ? vScale : undefined,
    });
  }

  #attend<D extends OutDtype>(layer: number, q: FloatArray, options: StepAttendOptions<D>): AttendResult<D> | Promise<AttendResult<D>> {
    this.#assertOpen();
    const { attention, queryHeads, layout, kScale, vScale } = this.layers[checkInteger(layer, 'layer', 0, this.layers.length - 1)];
    if (!this.#appended[layer]) throw new Error(`"attend" expected layer ${layer} to have been appended to in this step`);
    const expected = this.tokens * queryHeads * layout.headDim;
    if (q.length !== expected) throw new RangeError(`"q" expected ${this.tokens} tokens × ${queryHeads} heads × ${layout.headDim} = ${expected} elements, got ${q.length}`);
    const { blockTable, cuSeqlensQ, seqUsedK } = this.#tables;
    const {
      causal = attention.causal, windowLeft = attention.windowLeft, windowRight = attention.windowRight,
      softcap = attention.softcap, sinks = attention.sinks, alibiSlopes = attention.alibiSlopes, softmaxScale = attention.softmaxScale,
      kDescale, vDescale, dtype, outDtype, out, lse,
    } = options;
    return this.backend.attend({
      causal, windowLeft, windowRight, softcap, sinks, alibiSlopes, softmaxScale, dtype, outDtype, out, lse,
      pages: this.pages[layer], q, blockTable, cuSeqlensQ, seqUsedK, kDescale, vDescale,
      kScale: kDescale === undefined ? kScale : undefined,
      vScale: vDescale === undefined ? vScale : undefined,
    });
  }

  /**
   * Makes the new tokens part of their sequences.
   * @throws Error when a layer was not appended to: its keys and values would be missing. The step stays open.
   */
  commit(): void {
    this.#assertOpen();
    if (this.tokens > 0 && this.#appended.includes(false)) {
      const missing = this.#appended.flatMap((done, layer) => (done ? [] : [layer]));
      throw new Error(`"commit" expected every layer to have been appended to, missing ${missing.join(', ')}`);
    }
    this.#end();
    for (const { sequence, tokens, blocks, replaced } of this.reservations) {
      if (replaced !== undefined) this.pool.release(replaced);
      sequence.leaveStep(sequence.length + tokens, blocks);
    }
  }

  #end(): void {
    this.#open = false;
    // A backend that answers later may still have to read them.
    if (this.backend.synchronous) this.tables.give(this.#tables);
  }

  /** Gives back what was reserved: the sequences are as before. Does nothing once the step has ended. */
  abort(): void {
    if (!this.#open) return;
    this.#end();
    for (const { sequence, taken } of this.reservations) {
      for (const page of taken) this.pool.release(page);
      sequence.leaveStep();
    }
  }

  /** Aborts, unless the step has ended. */
  [Symbol.dispose](): void {
    this.abort();
  }
}
