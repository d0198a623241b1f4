/// <reference lib="esnext.disposable" preserve="true" />
/** The public face of fp8-kv. */
export { encode, decode, quantize, type EncodeOptions, type DecodeOptions, type QuantizeOptions, type Quantized } from './wasm/codec.js';
export { openBackend, type BackendChoice, type OpenOptions } from './open.js';
export { wasmBackend, type SynchronousOptions, type WasmBackendOptions } from './wasm/open.js';
export type { SimdBuild } from './wasm/features.js';
export type { WasmBackend } from './wasm/backend.js';
export type { WasmPages } from './wasm/pages.js';
export type { ThreadedBackend } from './wasm/threads/backend.js';
export type { ThreadedPages } from './wasm/threads/pages.js';
export { requestWebgpuBackend, requiredLimits, webgpuBackend, type OptionalFeature, type RequestWebgpuOptions, type WebgpuBackendOptions } from './webgpu/open.js';
export { tuneWebgpu, type TunedCandidate, type TuneOptions } from './webgpu/tune.js';
export type { Tuning } from './webgpu/tuning.js';
export type { WarmOptions, WebgpuAppendCall, WebgpuBackend, WebgpuStatus } from './webgpu/backend.js';
export type { WebgpuPages } from './webgpu/pages.js';
export type { RecordMergeStatesCall } from './webgpu/merge-states.js';
export type { RecordAppendCall, RecordAttendCall } from './webgpu/record.js';
export type { GpuTensor } from './webgpu/tensor.js';
export type { Variant } from './webgpu/variant.js';
export {
  alignAppend,
  alignAttend,
  type AlignAppendCall,
  type AlignAttendCall,
  type Alignment,
  type AppendAlignment,
  type AttendAlignment,
  type CacheMismatch,
  type ResultMismatch,
} from './align.js';
export { alignEncode, type AlignEncodeOptions, type CodeMismatch, type EncodeAlignment } from './align/encode.js';
export { alignBattery, type AlignedCase, type BatteryOptions, type BatteryResult } from './align/battery.js';
export type { AttentionError } from './files/compare.js';
export { mergeStates, type MergeStatesOptions } from './merge-states.js';
export { attendCascade, type CascadeCall } from './cascade.js';
export { Calibration, type ObserveOptions } from './calibrate/calibration.js';
export type { ObserverName } from './calibrate/observer.js';
export type { CalibrationLayer, CalibrationOptions } from './calibrate/options.js';
export { KvCache } from './cache/cache.js';
export type { MemoryReport } from './cache/memory.js';
export type { Checkpoint, RestoredSequence, RestoreReport } from './cache/checkpoint.js';
export type { KvCacheOptions, LayerConfig } from './cache/config.js';
export type { CacheObserver, LayerShape } from './cache/observer.js';
export { unstoragePages, type PageStore, type RawStorage } from './cache/page-store.js';
export type { PrefixCounters, PrefixMatch, PrefixOptions } from './cache/prefix.js';
export type { ResidualRule } from './cache/residual.js';
export type { SkipLayers } from './cache/skip.js';
export type { Sequence } from './cache/sequence.js';
export { loadSnapshot, saveSnapshot } from './cache/snapshot.js';
export { readScales, type CheckpointScales, type ReadScalesOptions, type UnquantizedCheckpoint } from './checkpoint/read.js';
export { kvCacheScheme, serializeScales, withKvCacheScheme, type KvCacheScheme, type SerializeScalesOptions } from './checkpoint/write.js';
export type { CheckpointPlace, CheckpointSource } from './checkpoint/source.js';
export type { FoundScale, LayerSide, ScaleReport, UnmatchedScale } from './checkpoint/report.js';
export type { GivenGranularity, KvScales, LayerScales } from './kv-scales.js';
export type { ByteSource } from './files/byte-stream.js';
export type { Step, StepEntry } from './cache/step.js';
export type { StepAppendOptions, StepAttendOptions, StepRecordOptions } from './cache/step-options.js';
export type { TokenIds } from './cache/token-log.js';
export { HuggingFaceCache, type HuggingFaceCacheOptions, type HuggingFaceLayer, type HuggingFaceTensor } from './huggingface.js';
export { pageLayout, type Granularity, type PageLayout, type PageOrder, type PageShape, type SideLayout, type SideOptions } from './layout.js';
export { recipes, type Quotient, type Recipe, type RecipeName, type ScalePrecision } from './recipe.js';
export type { GivenScale } from './scale.js';
export { vllmLayout, type VllmLayoutOptions } from './layouts/vllm.js';
export {
  flashinferLayout,
  fromFlashinferTables,
  toFlashinferTables,
  type BlockTables,
  type FlashinferLayoutOptions,
  type FlashinferTables,
} from './layouts/flashinfer.js';
export { ferrumLayout, milaLayout, type FerrumLayoutOptions, type MilaLayoutOptions } from './layouts/contiguous.js';
export { ferrumScaleBits, ferrumScales } from './layouts/half-scales.js';
export type { LayerOf } from './layouts/row-major.js';
export type { CacheDtype, FloatArray, FloatDtype, Format, FormatName, Fp8Format, QuantizedFormat } from './formats.js';
export { allowedPolicies, type Policy } from './policies.js';
export { presets, type Preset, type PresetName } from './presets.js';
export { onWarning, type WarningListener } from './warn.js';
export { DeviceLostError, FormatError, OutOfPagesError, UnsupportedDeviceError, WorkerLostError, type Unmet } from './errors.js';
export type {
  AppendCall,
  AppendStatus,
  AttendCall,
  AttendResult,
  AttentionOptions,
  Backend,
  CacheTensors,
  CodeArray,
  NhdTensors,
  OutArray,
  OutDtype,
  Pages,
  PerSide,
  RequantizeCall,
  ScaleStrides,
  SideTensor,
  TensorLayout,
  TensorStrides,
} from './backend.js';

/**
 * The names of WebGPU and of the web in these declarations. Where TypeScript knows them (lib.dom from 6.0 on, @webgpu/types, @types/web,
 * for URL @types/node, too), this adds nothing to them; elsewhere it lets programs compile that have no use for a GPU or a URL.
 */
declare global {
  interface GPU {}
  interface GPUBuffer {}
  interface GPUBufferBinding {}
  interface GPUCommandEncoder {}
  interface GPUDevice {}
  interface URL {}
}
