/** The variants of the kernels that a test's device can run. */
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { requestWebgpuBackend, type OptionalFeature } from '../../src/webgpu/open.js';
import { gpu } from './adapter.js';

const features = (await (await gpu?.requestAdapter())?.features) as ReadonlySet<string> | undefined;

/** By name: the features that a backend may use. */
export const variants: readonly { readonly name: string; readonly optionalFeatures: readonly OptionalFeature[] }[] = [
  { name: 'plain', optionalFeatures: [] },
  ...(features?.has('subgroups') ? [{ name: 'subgroups', optionalFeatures: ['subgroups'] as const }] : []),
];

/** Whether the device multiplies in f16. */
export const hasF16 = features?.has('shader-f16') ?? false;

/** A backend of its own, on which whatever WebGPU finds wrong is an error and not a line in a console. */
export async function openVariant(optionalFeatures: readonly OptionalFeature[]): Promise<WebgpuBackend> {
  const backend = await requestWebgpuBackend({ gpu, optionalFeatures, requiredFeatures: optionalFeatures });
  backend.device.addEventListener('uncapturederror', (event) => {
    throw (event as GPUUncapturedErrorEvent).error;
  });
  return backend;
}
