/// <reference lib="esnext.disposable" preserve="true" />
/** The public face of fp8-kv. */
export { encode, decode, quantize, type EncodeOptions, type DecodeOptions, type QuantizeOptions, type Quantized } from './wasm/codec.js';
export { openBackend } from './open.js';
export { wasmBackend, type WasmBackend, type WasmBackendOptions } from './wasm/backend.js';
export type { WasmPages } from './wasm/pages.js';
export { KvCache, type MemoryReport } from './cache/cache.js';
export type { KvCacheOptions, LayerConfig } from './cache/config.js';
export type { Sequence } from './cache/sequence.js';
export type { Step, StepAppendOptions, StepAttendOptions, StepEntry } from './cache/step.js';
export { pageLayout, type Granularity, type PageLayout, type PageShape, type SideLayout, type SideOptions } from './layout.js';
export { recipes, type Quotient, type Recipe, type RecipeName } from './recipe.js';
export type { FloatArray, FloatDtype, Format, FormatName, Fp8Format } from './formats.js';
export { FormatError, OutOfPagesError } from './errors.js';
export type {
  AppendCall,
  AppendStatus,
  AttendCall,
  AttendResult,
  AttentionOptions,
  Backend,
  CodeArray,
  NhdTensors,
  Pages,
  PerSide,
} from './backend.js';
