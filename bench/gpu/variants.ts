/** The variants of the kernels that benches compare: the one place where they are named. */
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { webgpuBackend, type OptionalFeature } from '../../src/webgpu/open.js';

const featureSets: readonly (readonly OptionalFeature[])[] = [[], ['subgroups'], ['subgroups', 'shader-f16']];

/** Every feature that a variant may use. */
export const optionalFeatures: readonly OptionalFeature[] = [...new Set(featureSets.flat())];

export interface BenchedVariant {
  /** What the backend made of the features: `plain`, `subgroups-32`, … */
  readonly name: string;
  readonly features: readonly OptionalFeature[];
  readonly backend: WebgpuBackend;
}

/**
 * A backend for each variant that the device can run; they share the device.
 * @param wanted only the sets whose features are all among these; undefined: every set
 */
export async function openVariants(device: GPUDevice, wanted?: readonly string[]): Promise<BenchedVariant[]> {
  const variants = new Map<string, BenchedVariant>();
  for (const features of featureSets) {
    if (!features.every((name) => device.features.has(name) && (wanted?.includes(name) ?? true))) continue;
    const backend = await webgpuBackend({ device, optionalFeatures: features });
    const name = backend.variant.key;
    // A device may have a feature that its backend finds of no use.
    if (variants.has(name)) backend.dispose();
    else variants.set(name, { name, features, backend });
  }
  return [...variants.values()];
}
