import { BindGroups } from './bindings.js';
import { usage } from './constants.js';
import type { Kernel } from './kernels.js';
import { Arena, Readbacks, Scratch, type Region } from './memory.js';
import { pipelinesOf, type Pipelines } from './pipelines.js';
import type { Variant } from './variant.js';

/** Results over parts of the keys: two that are merged, and what they give where that is merged on. */
type StateScratch = 'outA' | 'outB' | 'outC' | 'lseA' | 'lseB' | 'lseC';

/** A device, and what a backend has on it. */
export class Gpu {
  readonly pipelines: Pipelines;
  readonly arena: Arena;
  readonly readbacks: Readbacks;
  /** Inputs and results of calls whose data comes from and goes to the host, and what cuts hand to the merge. */
  readonly scratch: { readonly [name in 'key' | 'value' | 'q' | 'out' | 'lse' | 'partials' | 'lengths' | 'page' | StateScratch]: Scratch };
  /** One word, {@link statusBits}. */
  readonly status: GPUBuffer;
  /** The status word, to be bound; and something to bind where a kernel reads nothing. */
  readonly statusRegion: Region;
  /** Of kernels that read no pages. */
  readonly groups: BindGroups;
  /** Of the bindings that have one which is stated with each dispatch. */
  readonly #offsets = new Uint32Array(8);

  constructor(
    readonly device: GPUDevice,
    readonly variant: Variant,
  ) {
    this.pipelines = pipelinesOf(device);
    this.arena = new Arena(device);
    this.readbacks = new Readbacks(device);
    this.groups = new BindGroups(device);
    const scratch = (label: string): Scratch => new Scratch(device, label);
    this.scratch = {
      key: scratch('keys'), value: scratch('values'), q: scratch('queries'), out: scratch('outputs'), lse: scratch('lse'), partials: scratch('partial results'), lengths: scratch('lengths'), page: scratch('page'),
      outA: scratch('part of outputs'), outB: scratch('part of outputs'), outC: scratch('part of outputs'), lseA: scratch('part of lse'), lseB: scratch('part of lse'), lseC: scratch('part of lse'),
    };
    this.status = device.createBuffer({ label: 'fp8-kv status', size: 16, usage: usage.storage | usage.copySrc | usage.copyDst });
    this.statusRegion = { buffer: this.status, offset: 0, size: this.status.size };
  }

  get limits(): GPUSupportedLimits {
    return this.device.limits;
  }

  /**
   * Does something on the device.
   * @returns settles once WebGPU has looked at it, which is before it is done: rejects where it refused a part of it
   */
  checked(work: () => void): Promise<void> {
    const { device } = this;
    device.pushErrorScope('validation');
    let refusal: Promise<GPUError | null>;
    try {
      work();
    } finally {
      refusal = device.popErrorScope();
      // A device that is lost says so by itself, also where the work has thrown.
      refusal.catch(() => {});
    }
    return refusal.then((error) => {
      if (error) throw new Error(`WebGPU refused the call: ${error.message}`);
    });
  }

  /** Submits what `record` adds to an encoder. Settles as {@link checked}. */
  submit(label: string, record: (encoder: GPUCommandEncoder) => void): Promise<void> {
    return this.checked(() => {
      const encoder = this.device.createCommandEncoder({ label: `fp8-kv ${label}` });
      record(encoder);
      this.device.queue.submit([encoder.finish()]);
    });
  }

  /**
   * Submits what `record` adds to an encoder, and reads what it has left in `results`; where WebGPU refuses a part of it,
   * that is an error, and nothing is read.
   * @param size bytes of the results
   */
  readBack<T>(label: string, size: number, record: (encoder: GPUCommandEncoder, results: GPUBuffer) => void, read: (bytes: ArrayBuffer) => T): Promise<T> {
    const results = this.readbacks.take(size);
    let taken: Promise<void>;
    try {
      taken = this.submit(label, (encoder) => record(encoder, results));
    } catch (error) {
      this.readbacks.giveBack(results);
      throw error;
    }
    return this.readbacks.read(results, size, taken, read);
  }

  /** @throws RangeError where the device cannot bind as much */
  reserve(name: keyof Gpu['scratch'], bytes: number, argument: string): Region {
    const most = Math.min(this.limits.maxStorageBufferBindingSize, this.limits.maxBufferSize);
    if (bytes > most) throw new RangeError(`"${argument}" expected at most ${most} bytes, which is what this device can bind, got ${bytes}: take fewer tokens at a time`);
    return this.scratch[name].reserve(Math.max(bytes, 16), most);
  }

  /**
   * Adds a dispatch to a pass.
   * @param groups those of the pages that it is about
   * @param kernel must have been compiled
   * @param regions what each of its bindings is
   * @param workgroups how many; kernels find their own number with `linearIndex`
   */
  dispatch(pass: GPUComputePassEncoder, groups: BindGroups, kernel: Kernel, regions: readonly Region[], workgroups: number): void {
    if (workgroups === 0) return;
    const compiled = this.pipelines.find(kernel);
    if (!compiled) throw new Error(`the kernel "${kernel.key}" expected to be compiled before it is recorded: await backend.warm(…) once, before`);
    pass.setPipeline(compiled.pipeline);
    const offsets = this.#offsets;
    let count = 0;
    for (let i = 0; i < regions.length; i++) if (compiled.dynamic[i]) offsets[count++] = regions[i].offset;
    pass.setBindGroup(0, groups.find(compiled, regions), offsets, 0, count);
    const { maxComputeWorkgroupsPerDimension: most } = this.limits;
    pass.dispatchWorkgroups(Math.min(workgroups, most), Math.ceil(workgroups / most));
  }

  destroy(): void {
    this.arena.destroy();
    this.readbacks.destroy();
    for (const scratch of Object.values(this.scratch)) scratch.destroy();
    this.status.destroy();
  }
}
