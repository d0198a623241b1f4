import { COMPUTE_STAGE } from './constants.js';
import type { Binding, Kernel } from './kernels.js';

const layoutTypes: { readonly [B in Binding]: GPUBufferBindingLayout } = {
  params: { type: 'uniform', hasDynamicOffset: true },
  table: { type: 'read-only-storage', hasDynamicOffset: true },
  read: { type: 'read-only-storage' },
  write: { type: 'storage' },
};

/** A compiled kernel. */
export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** Of each binding, whether its offset is stated when a bind group is set, and not when it is made. */
  readonly dynamic: readonly boolean[];
}

/** The kernels of a device. Each is compiled once, and never while a command is recorded. */
class Pipelines {
  readonly #device: GPUDevice;
  readonly #ready = new Map<string, Pipeline>();
  readonly #pending = new Map<string, Promise<void>>();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** The kernel, where it has been compiled. */
  find(kernel: Kernel): Pipeline | undefined {
    return this.#ready.get(kernel.key);
  }

  compile(kernel: Kernel): Promise<void> {
    const { key } = kernel;
    if (this.#ready.has(key)) return Promise.resolve();
    let pending = this.#pending.get(key);
    if (!pending) {
      pending = this.#compile(kernel).finally(() => this.#pending.delete(key));
      this.#pending.set(key, pending);
    }
    return pending;
  }

  async #compile({ key, entryPoint, bindings, source }: Kernel): Promise<void> {
    const device = this.#device;
    const label = `fp8-kv ${key}`;
    const layout = device.createBindGroupLayout({
      label,
      entries: bindings.map((binding, index) => ({ binding: index, visibility: COMPUTE_STAGE, buffer: layoutTypes[binding] })),
    });
    const pipeline = await device.createComputePipelineAsync({
      label,
      layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ label, code: source() }), entryPoint },
    });
    this.#ready.set(key, { pipeline, layout, dynamic: bindings.map((binding) => layoutTypes[binding].hasDynamicOffset === true) });
  }
}

const ofDevice = new WeakMap<GPUDevice, Pipelines>();

export type { Pipelines };

/** The device's kernels: backends that share a device share them. */
export function pipelinesOf(device: GPUDevice): Pipelines {
  let pipelines = ofDevice.get(device);
  if (!pipelines) ofDevice.set(device, (pipelines = new Pipelines(device)));
  return pipelines;
}
