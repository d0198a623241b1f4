/** The variants of the kernels that a test's device can run. */
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { requestWebgpuBackend, type OptionalFeature } from '../../src/webgpu/open.js';
import { gpu, inNode } from './adapter.js';

const features = (await (await gpu?.requestAdapter())?.features) as ReadonlySet<string> | undefined;

interface TestedVariant {
  readonly name: string;
  /** What a backend may use. */
  readonly optionalFeatures: readonly OptionalFeature[];
}

const plain: TestedVariant = { name: 'plain', optionalFeatures: [] };
const subgroups: readonly TestedVariant[] = features?.has('subgroups') ? [{ name: 'subgroups', optionalFeatures: ['subgroups'] }] : [];

/** In Node all of them; in a page, which would take as long again, the one that users get. */
export const variants: readonly TestedVariant[] = inNode ? [plain, ...subgroups] : [subgroups[0] ?? plain];

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
