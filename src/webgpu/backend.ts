import { ownPlan, planAppend, planRequantize } from '../append.js';
import { checkPartDtypes } from '../attend-parts.js';
import { newResult, planAttention } from '../attention.js';
import type { AppendCall, AppendStatus, AttendCall, AttendResult, Backend, OutArray, OutDtype, Pages, RequantizeCall } from '../backend.js';
import type { FloatArray } from '../formats.js';
import { checkInteger, checkPageLayout, type PageLayout } from '../layout.js';
import { checkObject, checkOptions, type OptionNames } from '../options.js';
import { Queue } from '../queue.js';
import { appendKernels, planGpuRequantize, recordQuantize, recordRequantize } from './append.js';
import { attendKernels, measureTables, recordAttention, writeLengths, type GpuAttendCall } from './attend.js';
import { recordParts } from './attend-parts.js';
import { Gpu } from './gpu.js';
import { DECODE_TOKENS, mergeStatesKernel, statusBits, type Kernel } from './kernels.js';
import { Loss } from './loss.js';
import type { Region } from './memory.js';
import { planMergeStates, recordMerge, type RecordMergeStatesCall } from './merge-states.js';
import { WebgpuPages } from './pages.js';
import { checkEncoder, planRecordedAppend, planRecordedAttend, type RecordAppendCall, type RecordAttendCall } from './record.js';
import { checkDtype, isGpuTensor, regionOf, tensorBytes, type GpuTensor } from './tensor.js';
import type { Variant } from './variant.js';

/** As {@link AppendCall}; keys and values may lie in GPU buffers, then `dtype` says what they are (default f32). */
export interface WebgpuAppendCall extends Omit<AppendCall, 'key' | 'value'> {
  /** [tokens, kvHeads, headDim], on the host or on the GPU. */
  readonly key: FloatArray | GpuTensor;
  /** The same. */
  readonly value: FloatArray | GpuTensor;
}

/** What calls will be like whose kernels are to be compiled ahead. */
export interface WarmOptions {
  /** Default as many as KV heads. */
  readonly queryHeads?: number;
  /** New tokens per sequence, at most. Default: any number, which is two kernels more than a decode step needs. */
  readonly maxSeqlenQ?: number;
  /** Whether states will be merged. Default false. */
  readonly mergeStates?: boolean;
}

const warmNames: OptionNames<WarmOptions> = { queryHeads: true, maxSeqlenQ: true, mergeStates: true };

/** What kernels found wrong in tables that lay in GPU buffers since the last look. Each such entry was left out. */
export interface WebgpuStatus {
  /** A slot beyond the pages. */
  readonly badSlot: boolean;
  /** A page that is not there. */
  readonly badPage: boolean;
  /** Rows or keys that are negative, in no order, or more than the call allows. */
  readonly badLength: boolean;
}

/**
 * The GPU path: the same calls, and the same bytes in the pages, as on the CPU.
 *
 * Calls take effect in their order, which is that of the device's queue. `append` and `attend` take typed arrays and submit
 * by themselves; the `record` forms add commands to the caller's encoder and do nothing else.
 */
export class WebgpuBackend implements Backend {
  readonly kind = 'webgpu';
  readonly synchronous = false;
  readonly #gpu: Gpu;
  readonly #owned: boolean;
  readonly #queue = new Queue();
  readonly #pages = new Set<WebgpuPages>();
  readonly #loss: Loss;
  #disposed = false;

  /** @internal use `requestWebgpuBackend` or `webgpuBackend` */
  constructor(
    /** The device that it computes on: its own, or the caller's. */
    readonly device: GPUDevice,
    /** Which kernels this device gets. */
    readonly variant: Variant,
    owned: boolean,
  ) {
    this.#gpu = new Gpu(device, variant);
    this.#owned = owned;
    this.#loss = new Loss(device);
  }

  createPages(layout: PageLayout, count: number): WebgpuPages {
    this.#assertUsable();
    const pages = new WebgpuPages(this, layout, count, () => this.#pages.delete(pages));
    this.#pages.add(pages);
    return pages;
  }

  /** Why calls are refused, if they are. */
  get #ended(): Error | undefined {
    return this.#disposed ? new TypeError('"backend" expected to be in use, got one that was disposed of') : this.#loss.error;
  }

  #assertUsable(): void {
    const ended = this.#ended;
    if (ended) throw ended;
  }

  /** @internal The pages as ours, or an error. */
  own(pages: Pages, argument = 'pages'): WebgpuPages {
    if (pages instanceof WebgpuPages && pages.backend === this) return pages;
    throw new TypeError(`"${argument}" expected pages that this backend created`);
  }

  #areCompiled(kernels: readonly Kernel[]): boolean {
    return kernels.every((kernel) => this.#gpu.pipelines.find(kernel));
  }

  async #compile(kernels: readonly Kernel[]): Promise<void> {
    await Promise.all(kernels.map((kernel) => this.#gpu.pipelines.compile(kernel)));
    // A device that goes meanwhile gives kernels all the same.
    this.#assertUsable();
  }

  /**
   * @internal Does something in its turn: at once, where the kernels are there and nothing waits. What comes later waits
   * until this has been submitted, and not until the GPU has done it.
   */
  async run<T>(submit: (gpu: Gpu) => T | Promise<T>, kernels: readonly Kernel[] = []): Promise<T> {
    this.#assertUsable();
    const start = (): { result: T | Promise<T> } => {
      this.#assertUsable();
      return { result: submit(this.#gpu) };
    };
    try {
      const { result } = await this.#queue.run(this.#areCompiled(kernels) ? start : () => this.#compile(kernels).then(start));
      return await result;
    } catch (error) {
      throw error instanceof TypeError || error instanceof RangeError ? error : (this.#ended ?? (await this.#loss.explain(error)));
    }
  }

  /** @internal as {@link run}, for what gives nothing */
  later(submit: (gpu: Gpu) => void): void {
    this.#assertUsable();
    this.#queue.later(() => {
      if (!this.#ended) submit(this.#gpu);
    });
  }

  /** @internal Does something in its turn. What comes later waits until it has ended. What it throws is its own affair. */
  inTurn(work: (gpu: Gpu) => Promise<void>): void {
    this.#queue.run(() => work(this.#gpu)).catch(() => {});
  }

  /** @internal once all that was called before has been submitted, come what may */
  finally(end: () => void): void {
    this.#queue.later(end);
  }

  /** Tables that calls to come will name: they go to the GPU together, with the first of these calls. */
  expectTables(tables: readonly Int32Array[]): void {
    if (this.#ended) return;
    for (const table of tables) this.#gpu.arena.write(table);
  }

  /**
   * Resolves once WebGPU has accepted the keys and values, which is before they are stored; those that lay in typed arrays may
   * change from the call on.
   */
  async append(call: WebgpuAppendCall): Promise<AppendStatus> {
    this.#assertUsable();
    checkObject(call, 'call');
    const pages = this.own(call.pages);
    const { layout, region, groups } = pages;
    const plan = planAppend(call, pages.marks, (input) => (isGpuTensor(input) ? { dtype: checkDtype(call.dtype) } : undefined));
    const tokens = plan.slotMapping.length;
    if (plan.status.written === 0) return plan.status;
    const bytes = tensorBytes(tokens * layout.kvHeads, layout.headDim, plan.dtype);
    const kernels = appendKernels(layout);
    const ready = !this.#queue.busy && this.#areCompiled(kernels);
    const input = (name: 'key' | 'value'): ((gpu: Gpu) => Region) => {
      const tensor = call[name];
      if (isGpuTensor(tensor)) {
        const given = regionOf(tensor, bytes, name, this.device.limits);
        return () => given;
      }
      this.#gpu.reserve(name, bytes, name);
      const values = ready ? tensor : tensor.slice();
      return (gpu) => upload(gpu, gpu.reserve(name, bytes, name), values);
    };
    const [key, value] = [input('key'), input('value')];
    const own = ready ? plan : ownPlan(plan);
    return this.run(async (gpu) => {
      const quantize = { ...own, layout, pages: region, groups, slots: pages.count * layout.blockSize, tokens, key: key(gpu), value: value(gpu), slotMapping: gpu.arena.write(own.slotMapping) };
      await gpu.submit('append', (encoder) => recordQuantize(gpu, encoder, quantize));
      return plan.status;
    }, kernels);
  }

  /** As {@link append}: resolves once WebGPU has accepted it. */
  async requantize(call: RequantizeCall): Promise<AppendStatus> {
    this.#assertUsable();
    checkObject(call, 'call');
    const [pages, from] = [this.own(call.pages), this.own(call.from, 'from')];
    const plan = ownPlan(planRequantize(call, pages.marks));
    if (plan.status.written === 0) return plan.status;
    const planned = planGpuRequantize(this.#gpu, pages, from, plan);
    return this.run(async (gpu) => {
      await gpu.submit('requantize', (encoder) => recordRequantize(gpu, encoder, planned));
      return plan.status;
    }, appendKernels(pages.layout));
  }

  async attend<D extends OutDtype = 'f32'>(call: AttendCall<D>): Promise<AttendResult<D>> {
    this.#assertUsable();
    checkObject(call, 'call');
    const pages = this.own(call.pages);
    const { layout } = pages;
    // Kernels find the rows themselves.
    const plan = planAttention(call, () => 0x7fffffff);
    const { totalQ, queryHeads, dtype } = plan;
    const { cuSeqlensQ, seqUsedK, contextLens = seqUsedK } = call;
    const rows = totalQ * queryHeads;
    const result: AttendResult<D> = { out: call.out ?? (newResult(plan.outDtype, rows * layout.headDim) as OutArray<D>), lse: call.lse ?? new Float32Array(rows) };
    if (rows === 0) return result;
    const bytes = { q: tensorBytes(rows, layout.headDim, dtype), out: result.out.byteLength, lse: result.lse.byteLength };
    for (const [name, size] of Object.entries(bytes)) this.#gpu.reserve(name as 'q' | 'out' | 'lse', size, name);
    const shape = { layout, dtype, queryHeads, ...measureTables(cuSeqlensQ, seqUsedK), unchecked: false };
    const { region, groups, count } = pages;
    return this.run((gpu) => {
      const [out, lse] = [gpu.reserve('out', bytes.out, 'out'), gpu.reserve('lse', bytes.lse, 'lse')];
      const gpuCall: GpuAttendCall = {
        ...plan, ...shape, pageCount: count, pages: region, groups, out, lse,
        q: upload(gpu, gpu.reserve('q', bytes.q, 'q'), call.q),
        blockTable: gpu.arena.write(plan.blockTable), cuSeqlensQ: gpu.arena.write(cuSeqlensQ), ...writeLengths(gpu, seqUsedK, contextLens),
        sequences: seqUsedK.length,
      };
      const record = (encoder: GPUCommandEncoder, results: GPUBuffer): void => {
        recordAttention(gpu, encoder, gpuCall);
        encoder.copyBufferToBuffer(out.buffer, 0, results, 0, bytes.out);
        encoder.copyBufferToBuffer(lse.buffer, 0, results, bytes.out, bytes.lse);
      };
      return gpu.readBack('attend', bytes.out + bytes.lse, record, (data) => {
        result.out.set(plan.outDtype === 'f16' ? new Uint16Array(data, 0, result.out.length) : new Float32Array(data, 0, result.out.length));
        result.lse.set(new Float32Array(data, bytes.out, result.lse.length));
        return result;
      });
    }, attendKernels(shape, this.#gpu));
  }

  /**
   * Adds to the caller's encoder what quantizes keys and values into pages. Submits nothing and reads nothing back.
   * @throws Error unless {@link warm} has compiled the kernels; TypeError or RangeError naming what does not fit: nothing is recorded then
   */
  recordAppend(encoder: GPUCommandEncoder, call: RecordAppendCall): void {
    this.#assertUsable();
    checkEncoder(encoder);
    checkObject(call, 'call');
    const planned = planRecordedAppend(this.#gpu, this.own(call.pages), call);
    this.#assertReady(appendKernels(planned.layout));
    recordQuantize(this.#gpu, encoder, planned);
  }

  /**
   * Adds `requantize` to the caller's encoder. Submits nothing and reads nothing back.
   * @throws Error unless {@link warm} has compiled the kernels; TypeError or RangeError naming what does not fit: nothing is recorded then
   */
  recordRequantize(encoder: GPUCommandEncoder, call: RequantizeCall): void {
    this.#assertUsable();
    checkEncoder(encoder);
    checkObject(call, 'call');
    const [pages, from] = [this.own(call.pages), this.own(call.from, 'from')];
    const plan = planRequantize(call, pages.marks);
    this.#assertReady(appendKernels(pages.layout));
    if (plan.status.written > 0) recordRequantize(this.#gpu, encoder, planGpuRequantize(this.#gpu, pages, from, plan));
  }

  /**
   * Adds attention to the caller's encoder; `out` and `lse` are written when that is executed. Submits nothing and reads
   * nothing back.
   * @throws Error unless {@link warm} has compiled the kernels; TypeError or RangeError naming what does not fit: nothing is recorded then
   */
  recordAttend(encoder: GPUCommandEncoder, call: RecordAttendCall): void {
    this.#assertUsable();
    checkEncoder(encoder);
    checkObject(call, 'call');
    const planned = planRecordedAttend(this.#gpu, this.own(call.pages), call);
    this.#assertReady(attendKernels(planned, this.#gpu));
    recordAttention(this.#gpu, encoder, planned);
  }

  /**
   * Adds to the caller's encoder what joins attention over two parts of the keys: `mergeStates` with all in GPU buffers.
   * @throws Error unless {@link warm} has compiled the kernel; TypeError or RangeError naming what does not fit: nothing is recorded then
   */
  recordMergeStates(encoder: GPUCommandEncoder, call: RecordMergeStatesCall): void {
    this.#assertUsable();
    checkEncoder(encoder);
    checkObject(call, 'call');
    const planned = planMergeStates(this.#gpu, call);
    this.#assertReady([mergeStatesKernel]);
    recordMerge(this.#gpu, encoder, planned);
  }

  /**
   * @internal Adds attention over keys that lie in several places to the caller's encoder: each part's, and what merges them
   * into `out` and `lse`, which all name alike. Several need the kernel that `warm({ mergeStates: true })` compiles.
   */
  recordAttendParts(encoder: GPUCommandEncoder, parts: readonly RecordAttendCall[]): void {
    this.#assertUsable();
    checkEncoder(encoder);
    checkPartDtypes(parts);
    const planned = parts.map((part) => planRecordedAttend(this.#gpu, this.own(part.pages), part));
    this.#assertReady([...planned.flatMap((part) => attendKernels(part, this.#gpu)), ...(parts.length > 1 ? [mergeStatesKernel] : [])]);
    recordParts(this.#gpu, encoder, planned);
  }

  #assertReady(kernels: readonly Kernel[]): void {
    if (this.#queue.busy) throw new Error('calls that submit by themselves are still waiting for their kernels: await them before others are recorded');
    const missing = kernels.find((kernel) => !this.#gpu.pipelines.find(kernel));
    if (missing) throw new Error(`the kernel "${missing.key}" expected to be compiled before it is recorded: await backend.warm(layout, options) once`);
  }

  /** Compiles the kernels that calls on pages of this layout need, so that none is compiled in a decode loop. */
  async warm(layout: PageLayout, options: WarmOptions = {}): Promise<void> {
    this.#assertUsable();
    checkPageLayout(layout);
    checkOptions(options, 'options', warmNames);
    const { queryHeads = layout.kvHeads, maxSeqlenQ = Infinity, mergeStates = false } = options;
    checkInteger(queryHeads, 'queryHeads', 1);
    checkInteger(queryHeads / layout.kvHeads, 'queryHeads / kvHeads', 1);
    if (maxSeqlenQ !== Infinity) checkInteger(maxSeqlenQ, 'maxSeqlenQ', 0);
    await this.#compile([
      ...appendKernels(layout),
      ...attendKernels({ layout, queryHeads, decodes: true, prefills: maxSeqlenQ > DECODE_TOKENS, unchecked: true }, this.#gpu),
      ...(mergeStates ? [mergeStatesKernel] : []),
    ]);
  }

  /** What was found wrong in tables on the GPU since the last look, in all that has been submitted; and begins anew. */
  async readStatus(): Promise<WebgpuStatus> {
    return this.run((gpu) => {
      const record = (encoder: GPUCommandEncoder, results: GPUBuffer): void => {
        encoder.copyBufferToBuffer(gpu.status, 0, results, 0, 4);
        encoder.clearBuffer(gpu.status);
      };
      return gpu.readBack('status', 4, record, (data) => {
        const [bits] = new Uint32Array(data, 0, 1);
        return { badSlot: (bits & statusBits.BAD_SLOT) !== 0, badPage: (bits & statusBits.BAD_PAGE) !== 0, badLength: (bits & statusBits.BAD_LENGTH) !== 0 };
      });
    });
  }

  /** Ends the backend and gives back its buffers, once what was called before has been submitted; a device of its own is destroyed. */
  dispose(): void {
    if (this.#disposed) return;
    for (const pages of this.#pages) pages.dispose();
    this.#disposed = true;
    this.finally(() => {
      this.#gpu.destroy();
      if (this.#owned) this.device.destroy();
    });
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

function upload({ device }: Gpu, region: Region, values: FloatArray): Region {
  device.queue.writeBuffer(region.buffer, 0, values as FloatArray & ArrayBufferView<ArrayBuffer>);
  return region;
}
