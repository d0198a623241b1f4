import type { Storage } from '../src/model/cached-model.js';

export interface Variant extends Storage {
  readonly name: string;
}

/** The f32 cache comes first: the others are compared with it. */
export const variants: readonly Variant[] = [
  { name: 'f32', dtype: 'f32' },
  { name: 'e4m3fn, scale 1', dtype: 'e4m3fn', granularity: 'tensor' },
  { name: 'e4m3fn, token-head', dtype: 'e4m3fn', granularity: 'token-head' },
  { name: 'e5m2, scale 1', dtype: 'e5m2', granularity: 'tensor' },
  { name: 'e5m2, token-head', dtype: 'e5m2', granularity: 'token-head' },
  { name: 'int8, token-head', dtype: 'int8', granularity: 'token-head' },
];
