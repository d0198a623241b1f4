import { resolveCache, type KvCacheOptions } from '../cache/config.js';
import { UnsupportedDeviceError, type Unmet } from '../errors.js';
import { describe } from '../formats.js';
import { arrangeKeys } from '../layout.js';
import { checkOptions, type OptionNames } from '../options.js';
import { WebgpuBackend } from './backend.js';
import { recorded } from './recorded.js';
import { Loss } from './loss.js';
import { hasF16, multipliesMatrices, subgroupSize, unpacksF16 } from './probe.js';
import { tuningFor, type Tuning } from './tuning.js';
import { MATRIX_MEMORY, matrixShapeOf, variantOf, type MatrixShape, type SubgroupFacts } from './variant.js';

/**
 * Features by which kernels get faster. They work without any. With `shader-f16`, attention multiplies queries and 8-bit keys in
 * f16, in prefill where values have 8 bits, too: its results are within 5e-3 of exact ones for scores as models have them, and
 * not 1e-4. With `chromium-experimental-subgroup-matrix` beside the other two, matrix units do so in prefill; it needs Dawn's
 * switch `allow_unsafe_apis`.
 */
export type OptionalFeature = 'subgroups' | 'shader-f16' | 'chromium-experimental-subgroup-matrix';

interface FeatureOptions {
  /** What kernels may use where the device has it. Default: `subgroups`, which takes nothing from the results. */
  readonly optionalFeatures?: readonly OptionalFeature[];
  /** What the device must have, so that one can be sure of it. Default: nothing. */
  readonly requiredFeatures?: readonly OptionalFeature[];
  /**
   * How kernels share out their work, as `fp8-kv tune` or {@link tuneWebgpu} found it: one tuning, or one for each adapter that
   * is known. It says how soon results are there, and nothing of what they are. Default, also where none is for this adapter:
   * what its vendor's GPUs let expect.
   */
  readonly tuning?: Tuning | readonly Tuning[];
}

/** A device of its own: where it comes from, and what it is to have. */
export interface RequestWebgpuOptions extends FeatureOptions {
  /** Where adapters come from. Default: the browser's `navigator.gpu`; in Node that of the package `webgpu`, which one has to install. */
  readonly gpu?: GPU;
  /** As WebGPU's `requestAdapter` takes it. Default: the browser's choice. */
  readonly powerPreference?: 'low-power' | 'high-performance';
}

/** A device of the caller, and what kernels may use of it. */
export interface WebgpuBackendOptions extends FeatureOptions {
  /** The caller's device: it is never destroyed here. */
  readonly device: GPUDevice;
}

const featureNames: OptionNames<FeatureOptions> = { optionalFeatures: true, requiredFeatures: true, tuning: true };
const backendNames: OptionNames<WebgpuBackendOptions> = { ...featureNames, device: true };
const requestNames: OptionNames<RequestWebgpuOptions> = { ...featureNames, gpu: true, powerPreference: true };
const features: { readonly [Name in OptionalFeature]: true } = { subgroups: true, 'shader-f16': true, 'chromium-experimental-subgroup-matrix': true };
const powerPreferences: readonly unknown[] = ['low-power', 'high-performance', undefined];

function checkFeatures(names: readonly OptionalFeature[] | undefined, argument: string): void {
  if (names === undefined) return;
  if (!Array.isArray(names)) throw new TypeError(`"${argument}" expected an array of ${Object.keys(features).join(', ')}, got ${describe(names)}`);
  for (const [i, name] of (names as readonly OptionalFeature[]).entries()) {
    if (!Object.hasOwn(features, name)) throw new TypeError(`"${argument}[${i}]" expected one of ${Object.keys(features).join(', ')}, got ${describe(name)}`);
  }
}

/** @internal @throws TypeError naming the option that does not fit */
export function checkAdapterOptions({ gpu, powerPreference }: Pick<RequestWebgpuOptions, 'gpu' | 'powerPreference'>): void {
  if (gpu !== undefined && typeof gpu?.requestAdapter !== 'function') throw new TypeError(`"gpu" expected a GPU, as navigator.gpu is, got ${describe(gpu)}`);
  if (!powerPreferences.includes(powerPreference)) throw new TypeError(`"powerPreference" expected low-power or high-performance, got ${describe(powerPreference)}`);
}

const defaultFeatures: readonly OptionalFeature[] = ['subgroups'];

/** What kernels need of any device: WebGPU's own defaults or less. */
const neededLimits = {
  maxBindGroups: 1,
  maxBindingsPerBindGroup: 9,
  maxStorageBuffersPerShaderStage: 8,
  maxUniformBuffersPerShaderStage: 1,
  maxDynamicUniformBuffersPerPipelineLayout: 1,
  maxDynamicStorageBuffersPerPipelineLayout: 4,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeInvocationsPerWorkgroup: 128,
  maxComputeWorkgroupSizeX: 128,
} as const;

type LimitName = keyof typeof neededLimits | 'maxBufferSize' | 'maxStorageBufferBindingSize';

function assertSupported(device: GPUDevice, requiredFeatures: readonly OptionalFeature[]): void {
  const unmet: Unmet[] = [];
  for (const [name, need] of Object.entries(neededLimits) as [LimitName, number][]) {
    const have = device.limits[name];
    if (have < need) unmet.push({ name, need, have });
  }
  for (const name of requiredFeatures) if (!device.features.has(name)) unmet.push({ name, need: 'present', have: 'absent' });
  if (unmet.length > 0) throw new UnsupportedDeviceError(unmet);
}

const matrixFeatures: readonly OptionalFeature[] = ['chromium-experimental-subgroup-matrix', 'subgroups', 'shader-f16'];

/** The matrices that a device multiplies, where it has all that takes, and does it right. */
async function matrixOf(device: GPUDevice, wanted: ReadonlySet<OptionalFeature>): Promise<MatrixShape | undefined> {
  if (!matrixFeatures.every((name) => wanted.has(name) && device.features.has(name)) || device.limits.maxComputeWorkgroupStorageSize < MATRIX_MEMORY) return undefined;
  const shape = matrixShapeOf((device.adapterInfo ?? {}) as SubgroupFacts);
  return shape && (await multipliesMatrices(device, shape)) ? shape : undefined;
}

/** Browsers of 2024 do not say what a device's adapter is. */
const unknownAdapter = { vendor: '', architecture: '' };

async function makeBackend(device: GPUDevice, owned: boolean, { optionalFeatures = defaultFeatures, requiredFeatures = [], tuning }: FeatureOptions): Promise<WebgpuBackend> {
  checkFeatures(optionalFeatures, 'optionalFeatures');
  checkFeatures(requiredFeatures, 'requiredFeatures');
  assertSupported(device, requiredFeatures);
  const tuned = tuningFor(device.adapterInfo ?? unknownAdapter, tuning);
  const wanted = new Set([...optionalFeatures, ...requiredFeatures]);
  const loss = new Loss(device);
  try {
    const facts = {
      subgroupSize: tuned.subgroups && wanted.has('subgroups') ? await subgroupSize(device) : 0,
      f16: wanted.has('shader-f16') && (await hasF16(device)),
      unpacksF16: await unpacksF16(device),
      matrix: await matrixOf(device, wanted),
    };
    return recorded(new WebgpuBackend(device, variantOf(facts, tuned), owned));
  } catch (error) {
    throw await loss.explain(error);
  }
}

/**
 * A backend on a device that the caller has made and goes on using. {@link requiredLimits} says what to ask of it.
 * @throws TypeError for an option that does not fit; UnsupportedDeviceError with every limit and feature that the device lacks;
 * DeviceLostError where it is lost
 */
export async function webgpuBackend(options: WebgpuBackendOptions): Promise<WebgpuBackend> {
  checkOptions(options, 'options', backendNames);
  const { device, ...rest } = options;
  // What an adapter has not: one is easily handed over in a device's place.
  if (typeof device?.queue?.submit !== 'function') throw new TypeError(`"device" expected a GPUDevice, got ${describe(device)}`);
  return makeBackend(device, false, rest);
}

/** Kept for good: a GPU object of Node's package that is collected takes its devices with it. */
let nodeGpu: GPU | undefined;

/** Where this place has its GPUs, or why it has none. */
async function findGpu(): Promise<GPU | string> {
  if (typeof navigator === 'object' && navigator.gpu) return navigator.gpu;
  if (typeof process !== 'object' || !process.versions?.node) return 'this browser, or this page, has no WebGPU';
  // Not written down as a literal: it is for the user to install, and bundlers of web pages must not look for it.
  const name = 'webgpu';
  try {
    const { create } = (await import(/* @vite-ignore */ /* webpackIgnore: true */ name)) as { create: (flags: string[]) => GPU };
    return (nodeGpu ??= create([]));
  } catch (error) {
    const { code, message } = error as Error & { readonly code?: string };
    return code === 'ERR_MODULE_NOT_FOUND' ? 'there is no WebGPU here: in Node it comes with the package "webgpu", which is not installed' : `the package "webgpu" cannot be loaded: ${message}`;
  }
}

/** @internal an adapter, or why there is none */
export async function findAdapter({ gpu, powerPreference }: RequestWebgpuOptions): Promise<GPUAdapter | string> {
  const found = gpu ?? (await findGpu());
  if (typeof found === 'string') return found;
  return (await found.requestAdapter({ powerPreference })) ?? 'WebGPU has no adapter for this machine';
}

/** Which device to ask an adapter for: with its largest buffers, the optional features that it has, and the workgroup memory that they take. */
function descriptorFor(adapter: GPUAdapter, { optionalFeatures = defaultFeatures, requiredFeatures = [] }: FeatureOptions, more: readonly GPUFeatureName[]): GPUDeviceDescriptor {
  const { maxBufferSize, maxStorageBufferBindingSize, maxComputeWorkgroupStorageSize } = adapter.limits;
  const features = [...new Set([...optionalFeatures, ...requiredFeatures, ...more])].filter((name) => adapter.features.has(name));
  const memory = matrixFeatures.every((name) => features.includes(name)) ? { maxComputeWorkgroupStorageSize } : {};
  return { label: 'fp8-kv', requiredFeatures: features as GPUFeatureName[], requiredLimits: { maxBufferSize, maxStorageBufferBindingSize, ...memory } };
}

/** @internal a device of one's own; `more` features are for what kernels do not use, and asked for where the adapter has them */
export const requestDevice = (adapter: GPUAdapter, options: FeatureOptions, more: readonly GPUFeatureName[] = []): Promise<GPUDevice> =>
  adapter.requestDevice(descriptorFor(adapter, options, more));

/** @internal a backend that destroys the device with itself, or at once where it cannot be made */
export async function backendOwning(device: GPUDevice, options: FeatureOptions): Promise<WebgpuBackend> {
  try {
    return await makeBackend(device, true, options);
  } catch (error) {
    device.destroy();
    throw error;
  }
}

/**
 * A backend on a GPU device of its own; `dispose()` gives it back.
 * @throws TypeError for an option that does not fit; Error where there is no GPU; UnsupportedDeviceError with every limit and feature that it lacks
 */
export async function requestWebgpuBackend(options: RequestWebgpuOptions = {}): Promise<WebgpuBackend> {
  checkOptions(options, 'options', requestNames);
  checkAdapterOptions(options);
  checkFeatures(options.optionalFeatures, 'optionalFeatures');
  checkFeatures(options.requiredFeatures, 'requiredFeatures');
  const adapter = await findAdapter(options);
  if (typeof adapter === 'string') throw new Error(adapter);
  return backendOwning(await requestDevice(adapter, options), options);
}

/**
 * The limits above WebGPU's defaults that a device needs for a cache: for `adapter.requestDevice({ requiredLimits })`.
 * @throws TypeError or RangeError naming the option that does not fit
 */
export function requiredLimits(options: KvCacheOptions): { readonly maxBufferSize: number; readonly maxStorageBufferBindingSize: number } {
  const { layers, pageCount } = resolveCache(options);
  const bytes = Math.max(...layers.map(({ layout }) => arrangeKeys(layout, 'token-major').bytes * pageCount));
  return { maxBufferSize: Math.max(bytes, 2 ** 28), maxStorageBufferBindingSize: Math.max(bytes, 2 ** 27) };
}
