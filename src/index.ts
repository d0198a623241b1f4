/// <reference lib="esnext.disposable" preserve="true" />
/** The public face of fp8-kv. */
export { encode, decode, quantize, type EncodeOptions, type DecodeOptions, type QuantizeOptions, type Quantized } from './wasm/codec.js';
export { openBackend, type OpenOptions } from './open.js';
export { wasmBackend, type SynchronousOptions, type WasmBackendOptions } from './wasm/open.js';
export type { WasmBackend } from './wasm/backend.js';
export type { WasmPages } from './wasm/pages.js';
export type { ThreadedBackend } from './wasm/threads/backend.js';
export type { ThreadedPages } from './wasm/threads/pages.js';
export { KvCache, type MemoryReport } from './cache/cache.js';
export type { KvCacheOptions, LayerConfig } from './cache/config.js';
export type { Sequence } from './cache/sequence.js';
export type { Step, StepAppendOptions, StepAttendOptions, StepEntry } from './cache/step.js';
export { pageLayout, type Granularity, type PageLayout, type PageShape, type SideLayout, type SideOptions } from './layout.js';
export { recipes, type Quotient, type Recipe, type RecipeName } from './recipe.js';
export type { FloatArray, FloatDtype, Format, FormatName, Fp8Format } from './formats.js';
export { FormatError, OutOfPagesError, WorkerLostError } from './errors.js';
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
