/** Given scales of a model's keys and values: what a calibration yields, a checkpoint holds and a cache takes. */
import type { QuantizedFormat } from './formats.js';

/** What shares a given scale: all of a layer, a KV head, or one dim of it. */
export type GivenGranularity = (typeof givenGranularities)[number];

export const givenGranularities = ['tensor', 'head', 'channel'] as const;

/** Of one layer: a `LayerConfig` as it stands. */
export interface LayerScales {
  /** What the scales are for. */
  readonly dtype: QuantizedFormat;
  /** What shares a scale. */
  readonly granularity: GivenGranularity;
  /** `[1]` with `tensor`, `[kvHeads]` with `head`, `[kvHeads, headDim]` with `channel`: finite and greater than 0. */
  readonly scale: { readonly k: Float32Array; readonly v: Float32Array };
  /** Of queries, shaped as `scale.k`: for engines that quantize them. Attention here does not. */
  readonly qScale?: Float32Array;
}

/** Of all layers: `new KvCache(backend, { layers: scales.layers, … })`. */
export interface KvScales {
  /** What the scales are for. */
  readonly dtype: QuantizedFormat;
  /** What shares a scale; the same in all layers. */
  readonly granularity: GivenGranularity;
  /** One entry a layer, as a `KvCache` takes them. */
  readonly layers: readonly LayerScales[];
}
