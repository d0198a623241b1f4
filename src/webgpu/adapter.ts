/** What an adapter says of itself. */

/** Drivers that compute on the CPU; WebGPU itself says so of a browser's own only. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|\bwarp\b|basic render/i;

/** Whether the GPU is the CPU. */
export const isSoftware = ({ isFallbackAdapter, vendor, architecture, device, description }: GPUAdapterInfo): boolean =>
  isFallbackAdapter || SOFTWARE.test(`${vendor} ${architecture} ${device} ${description}`);

/** Its name, as far as the browser tells. */
export const adapterName = ({ vendor, architecture, description }: GPUAdapterInfo): string => [vendor, architecture].filter(Boolean).join(' ') || description || 'unnamed';
