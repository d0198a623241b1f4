/** The ways to store that an evaluation compares: formats × scales. */
import type { ObserverName } from '../calibrate/observer.js';
import { quantizedFormats, type Format, type QuantizedFormat } from '../formats.js';
import type { GivenGranularity, KvScales } from '../kv-scales.js';
import type { Granularity } from '../layout.js';
import type { Storage } from '../model/cached-model.js';
import type { ScaleSource } from './evaluation.js';

/** How scales come about: all 1, given after a calibration, or computed as tokens are written. */
export const scaleChoices = ['one', 'tensor', 'head', 'channel', 'token-head', 'group'] as const;
type ScaleChoice = (typeof scaleChoices)[number];

/** What caches may store, beside the reference's f32. */
export const formatChoices = ['f16', ...quantizedFormats] as const;
export type FormatChoice = (typeof formatChoices)[number];

export interface Choices {
  readonly formats: readonly FormatChoice[];
  readonly scales: readonly ScaleChoice[];
  /** Each makes a variant of each calibrated granularity. */
  readonly observers: readonly ObserverName[];
  /** Dims that share a scale with `group`. */
  readonly groupSize: number;
}

export interface Variant {
  readonly name: string;
  readonly dtype: Format;
  readonly granularity: Granularity;
  readonly scales: ScaleSource;
  readonly observer?: ObserverName;
  readonly groupSize?: number;
  /** Scales that are given, and not found by a calibration. */
  readonly layers?: KvScales['layers'];
}

const reference: Variant = { name: 'f32', dtype: 'f32', granularity: 'tensor', scales: 'none' };
const half: Variant = { ...reference, name: 'f16', dtype: 'f16' };

function variantsOf(dtype: QuantizedFormat, scale: ScaleChoice, { observers, groupSize }: Choices): Variant[] {
  switch (scale) {
    case 'one':
      return [{ name: `${dtype}, scale 1`, dtype, granularity: 'tensor', scales: 'one' }];
    case 'token-head':
      return [{ name: `${dtype}, token-head`, dtype, granularity: 'token-head', scales: 'computed' }];
    case 'group':
      return [{ name: `${dtype}, group ${groupSize}`, dtype, granularity: 'group', scales: 'computed', groupSize }];
    default:
      return observers.map((observer) => ({ name: `${dtype}, ${scale}, ${observer}`, dtype, granularity: scale, scales: 'calibrated', observer }));
  }
}

/** The reference first. */
export const listVariants = (choices: Choices): Variant[] => [
  reference,
  ...choices.formats.flatMap((dtype) => (dtype === 'f16' ? [half] : choices.scales.flatMap((scale) => variantsOf(dtype, scale, choices)))),
];

/** A way to store that a checkpoint states. */
export const givenVariant = ({ dtype, granularity, layers }: KvScales, source: string): Variant => ({ name: `${dtype}, ${granularity}, ${source}`, dtype, granularity, scales: 'checkpoint', layers });

/** A variant that needs a calibration. */
export type CalibratedVariant = Variant & { readonly dtype: QuantizedFormat; readonly granularity: GivenGranularity; readonly observer: ObserverName };

export const isCalibrated = (variant: Variant): variant is CalibratedVariant => variant.scales === 'calibrated';

/** How a cache stores a variant that needs no calibration. */
export const storageOf = ({ dtype, granularity, scales, groupSize, layers }: Variant): Storage => (scales === 'none' ? { dtype } : { dtype, granularity, groupSize, ...(layers && { layers }) });
