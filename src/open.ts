import { misalignment } from './align/battery.js';
import type { Backend } from './backend.js';
import { inOneLine } from './errors.js';
import { describe } from './formats.js';
import { checkInteger } from './layout.js';
import { checkOptions, type OptionNames } from './options.js';
import { threadsAvailable, wasmBackend } from './wasm/open.js';
import { adapterName, isSoftware } from './webgpu/adapter.js';
import type { WebgpuBackend } from './webgpu/backend.js';
import { backendOwning, checkAdapterOptions, findAdapter, requestDevice, type RequestWebgpuOptions } from './webgpu/open.js';

/** Which backend was taken, and why. */
export interface BackendChoice {
  /** What was taken. */
  readonly backend: 'webgpu' | 'wasm';
  /** Why, in one sentence: which adapter it is, or what is wrong with the GPU. */
  readonly reason: string;
}

/** What `openBackend` may take, and how long it may look. */
export interface OpenOptions extends Pick<RequestWebgpuOptions, 'gpu' | 'powerPreference'> {
  /**
   * Threads that compute where the CPU does, at most. Default 1. Where there can be no more (a page that is not cross-origin
   * isolated), it is 1 all the same: `wasmBackend({ threads })` would say why.
   */
  readonly threads?: number;
  /**
   * `wasm`: the GPU is not looked for. `webgpu`: an adapter that computes on the CPU is good enough, too. Default: the
   * faster one, which is a GPU that computes what it must.
   */
  readonly prefer?: 'webgpu' | 'wasm';
  /** Milliseconds that the GPU has to show what it can. Default 10,000. */
  readonly gpuTimeLimit?: number;
  /** Told which backend it is, and why. */
  readonly onChoice?: (choice: BackendChoice) => void;
}

const optionNames: OptionNames<OpenOptions> = { threads: true, prefer: true, gpuTimeLimit: true, onChoice: true, gpu: true, powerPreference: true };

/** The time that the GPU has, all its steps together. */
class Deadline {
  readonly #limit: number;
  readonly #end: number;

  constructor(milliseconds: number) {
    this.#limit = milliseconds;
    this.#end = performance.now() + milliseconds;
  }

  /**
   * @param step what the time may run out in
   * @param late is given what comes too late
   */
  async wait<T>(step: string, work: Promise<T>, late: (result: T) => void = () => {}): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        void work.then(late, () => {});
        reject(new Error(`${step} took longer than ${this.#limit / 1000} s`));
      }, this.#end - performance.now());
    });
    try {
      return await Promise.race([work, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** A backend on the GPU that gives known answers, with the reason to take it; or the reason not to. */
async function openGpu(options: OpenOptions, gpuTimeLimit: number): Promise<{ readonly backend?: WebgpuBackend; readonly reason: string }> {
  const deadline = new Deadline(gpuTimeLimit);
  let device: GPUDevice | undefined;
  let name = 'the GPU';
  try {
    const adapter = await deadline.wait('finding an adapter', findAdapter(options));
    if (typeof adapter === 'string') return { reason: adapter };
    name = `the GPU (${adapterName(adapter.info)})`;
    if (options.prefer !== 'webgpu' && isSoftware(adapter.info)) return { reason: `${name} computes on the CPU, where WebAssembly is faster` };
    device = await deadline.wait('making a device', requestDevice(adapter, {}), (tooLate) => tooLate.destroy());
    const backend = await deadline.wait('trying out the device', backendOwning(device, {}));
    const difference = await deadline.wait('the check of known answers', misalignment(wasmBackend(), backend));
    if (difference === undefined) return { backend, reason: `${name} gives the known answers` };
    device.destroy();
    return { reason: `${name} computes wrongly: ${difference}` };
  } catch (error) {
    // Not the backend: it would wait for what it was asked to do.
    device?.destroy();
    return { reason: `${name} cannot be used: ${inOneLine(error)}` };
  }
}

/**
 * The fastest backend of this machine: WebGPU where there is a GPU that gives known answers, else WebAssembly SIMD. Whatever
 * is wrong with a GPU is a reason to do without, and no error.
 * @throws TypeError or RangeError for an option that does not fit
 */
export async function openBackend(options: OpenOptions = {}): Promise<Backend> {
  checkOptions(options, 'options', optionNames);
  const { prefer, onChoice, gpuTimeLimit = 10_000 } = options;
  const threads = threadsAvailable(options.threads);
  if (prefer !== undefined && prefer !== 'webgpu' && prefer !== 'wasm') throw new TypeError(`"prefer" expected webgpu or wasm, got ${describe(prefer)}`);
  if (onChoice !== undefined && typeof onChoice !== 'function') throw new TypeError(`"onChoice" expected a function, got ${describe(onChoice)}`);
  checkInteger(gpuTimeLimit, 'gpuTimeLimit', 1);
  if (prefer !== 'wasm') checkAdapterOptions(options);
  const { backend, reason } = prefer === 'wasm' ? { reason: 'it was asked for' } : await openGpu(options, gpuTimeLimit);
  onChoice?.({ backend: backend ? 'webgpu' : 'wasm', reason });
  return backend ?? wasmBackend({ threads });
}
