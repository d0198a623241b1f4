/** What the calls of a step take beside their tensors. */
import { attentionNames } from '../attention.js';
import type { AttentionOptions, OutArray, OutDtype } from '../backend.js';
import type { FloatDtype } from '../formats.js';
import type { OptionNames } from '../options.js';
import type { GivenScale } from '../scale.js';
import type { RecordAttendCall } from '../webgpu/record.js';
import type { GpuTensor } from '../webgpu/tensor.js';

/** How the arrays of an append are to be read. */
export interface StepAppendOptions {
  /** Dtype of key and value; needed for Uint16Array. */
  readonly dtype?: FloatDtype;
}

/** Descales of one call, in place of the layer's given scales. */
interface StepDescales {
  /** One number for all, or [sequences, kvHeads] in the order of `begin`; granularities tensor and head. Default: the layer's scale. */
  readonly kDescale?: GivenScale;
  /** The same for values. */
  readonly vDescale?: GivenScale;
}

/**
 * Overrides of the layer's attention, and where to put the result. A layer with `slidingWindow` takes no other window, and no
 * `causal`: what its own hides is gone.
 */
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

export const appendNames: OptionNames<StepAppendOptions> = { dtype: true };

/** With results on the host or in GPU buffers: the names are the same. */
export const attendNames: OptionNames<StepAttendOptions<OutDtype>> & OptionNames<StepRecordOptions> = {
  ...attentionNames, kDescale: true, vDescale: true, dtype: true, outDtype: true, out: true, lse: true,
};
