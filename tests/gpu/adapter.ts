/** WebGPU where the tests run: Dawn in Node, the browser's own in a page. */

const DAWN = 'webgpu';

async function dawn(): Promise<GPU> {
  // Not a literal: the package's types collide with @types/web, and bundlers for browsers would look for it.
  const { create } = (await import(DAWN)) as { create(options: string[]): GPU };
  return create([]);
}

const inNode = typeof process === 'object';
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
