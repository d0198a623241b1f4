import type { Variant } from '../src/evaluate/variants.js';

/** The f32 cache comes first: the others are compared with it. */
export const variants: readonly Variant[] = [
  { name: 'f32', dtype: 'f32', granularity: 'tensor', scales: 'none' },
  { name: 'e4m3fn, scale 1', dtype: 'e4m3fn', granularity: 'tensor', scales: 'one' },
  { name: 'e4m3fn, head, calibrated', dtype: 'e4m3fn', granularity: 'head', scales: 'calibrated', observer: 'minmax' },
  { name: 'e4m3fn, token-head', dtype: 'e4m3fn', granularity: 'token-head', scales: 'computed' },
  { name: 'e5m2, scale 1', dtype: 'e5m2', granularity: 'tensor', scales: 'one' },
  { name: 'e5m2, token-head', dtype: 'e5m2', granularity: 'token-head', scales: 'computed' },
  { name: 'int8, head, calibrated', dtype: 'int8', granularity: 'head', scales: 'calibrated', observer: 'minmax' },
  { name: 'int8, token-head', dtype: 'int8', granularity: 'token-head', scales: 'computed' },
];
