/** What an evaluation finds: plain data, as `fp8-kv evaluate --json` prints it and as the report draws it. */
import type { Format } from '../formats.js';
import type { Granularity } from '../layout.js';

/** Where a way of storing has its scales from. */
export type ScaleSource =
  /** Not quantized. */
  | 'none'
  /** All scales are 1. */
  | 'one'
  /** Given, from a calibration. */
  | 'calibrated'
  /** Given, from a checkpoint. */
  | 'checkpoint'
  /** Computed as tokens are written. */
  | 'computed';

/** A way to store keys and values, and what it does to the model. */
export interface VariantResult {
  /** For people: `e4m3fn, head, mse`. */
  readonly name: string;
  readonly dtype: Format;
  readonly granularity: Granularity;
  readonly scales: ScaleSource;
  /** Of a calibration. */
  readonly observer?: string;
  /** Of keys and values, scales included, in all layers. */
  readonly bytesPerToken: number;
  readonly perplexity: number;
  /** KL(reference ‖ this) per token, in nats: mean, 99th percentile and largest. 0 for the reference itself. */
  readonly kl: { readonly mean: number; readonly p99: number; readonly max: number };
  /** Share of tokens whose likeliest successor is the reference's, 0 to 1. */
  readonly agreement: number;
  /**
   * Root mean square of the quantization error of the reference's keys and values over that of themselves, [layers][kvHeads].
   * Absent for the reference.
   */
  readonly headErrors?: { readonly k: readonly (readonly number[])[]; readonly v: readonly (readonly number[])[] };
}

export interface Evaluation {
  readonly version: 1;
  readonly model: {
    readonly name: string;
    readonly layers: number;
    readonly queryHeads: number;
    readonly kvHeads: number;
    readonly headDim: number;
    readonly context: number;
    readonly vocab: number;
  };
  /** Which backend ran it, and on what. */
  readonly backend: string;
  /** What was evaluated: the file's name, its tokens, and how many go through the model at a time, each window from an empty cache. */
  readonly text: { readonly name: string; readonly tokens: number; readonly window: number };
  /** What calibrated scales were found with. Absent where none were. */
  readonly calibration?: { readonly name: string; readonly tokens: number };
  /** The first is the reference, which the others are compared with. */
  readonly variants: readonly VariantResult[];
}
