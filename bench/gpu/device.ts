/** The device that GPU benches run on. */
import { isSoftware } from '../../src/webgpu/adapter.js';
import { requestDevice, type OptionalFeature } from '../../src/webgpu/open.js';
import { chosenAdapter } from '../../tests/gpu/environment.js';

const DAWN = 'webgpu';

/** As users get it, but for timestamps, which Dawn otherwise rounds to 65,536 ns; and on SwiftShader as tests have it (tests/gpu/adapter.ts). */
function disabledFeatures(): string[] {
  const forSwiftshader = chosenAdapter() === 'swiftshader' ? ['use_vulkan_zero_initialize_workgroup_memory_extension'] : [];
  return ['timestamp_quantization', ...forSwiftshader];
}

async function dawn(): Promise<GPU> {
  // Not a literal: the package's types collide with @types/web.
  const { create } = (await import(DAWN)) as { create(options: string[]): GPU };
  return create([`disable-dawn-features=${disabledFeatures().join(',')}`]);
}

/** Kept for good: devices do not survive the object from `create`. */
const gpu = await dawn();

/** What a GPU says of itself. */
export interface AdapterFacts {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  /** With the driver's name and version, in Node. */
  readonly description: string;
  /** Whether it is the CPU that computes. */
  readonly software: boolean;
  readonly subgroups: readonly [number, number];
  readonly features: readonly string[];
  readonly limits: { readonly maxBufferSize: number; readonly maxStorageBufferBindingSize: number };
}

async function requestAdapter(): Promise<GPUAdapter> {
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) throw new Error(`WebGPU has no adapter for this machine (FP8_KV_ADAPTER=${chosenAdapter()})`);
  return adapter;
}

function factsOf({ info, features, limits }: GPUAdapter): AdapterFacts {
  const { vendor, architecture, device, description, subgroupMinSize, subgroupMaxSize } = info;
  const { maxBufferSize, maxStorageBufferBindingSize } = limits;
  return { vendor, architecture, device, description, software: isSoftware(info), subgroups: [subgroupMinSize, subgroupMaxSize], features: [...features].sort(), limits: { maxBufferSize, maxStorageBufferBindingSize } };
}

/**
 * A device as the library asks for it, with the features that the adapter has, and timestamps besides. What WebGPU finds wrong
 * on it ends the bench.
 */
export async function openDevice(features: readonly OptionalFeature[]): Promise<{ readonly device: GPUDevice; readonly adapter: AdapterFacts }> {
  const adapter = await requestAdapter();
  const device = await requestDevice(adapter, { optionalFeatures: [...features, 'timestamp-query' as OptionalFeature] });
  device.addEventListener('uncapturederror', (event) => {
    throw new Error((event as GPUUncapturedErrorEvent).error.message);
  });
  return { device, adapter: factsOf(adapter) };
}
