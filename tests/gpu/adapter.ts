/** WebGPU where the tests run: Dawn in Node, the browser's own in a page. */

const DAWN = 'webgpu';

/** On SwiftShader, clearing workgroup memory by this Vulkan extension is code for each word of it, and kernels take 4 times as long to compile. */
const DAWN_OPTIONS = ['disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension'];

async function dawn(): Promise<GPU> {
  // Not a literal: the package's types collide with @types/web, and bundlers for browsers would look for it.
  const { create } = (await import(DAWN)) as { create(options: string[]): GPU };
  return create(DAWN_OPTIONS);
}

export const inNode = typeof process === 'object';
let problem = 'there is no adapter';

/** Kept for good: devices do not survive the object from `create`. */
export const gpu: GPU | undefined = inNode
  ? await dawn().catch((error: unknown) => {
      problem = String(error);
      return undefined;
    })
  : navigator.gpu;

const adapter = await gpu?.requestAdapter();

export const adapterName = adapter ? `${adapter.info.vendor} ${adapter.info.architecture}` : 'no adapter';

/** Why GPU suites have to be skipped, for their option `skip`. */
export const noAdapter: string | undefined = adapter ? undefined : problem;
