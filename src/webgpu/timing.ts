/** Times what a GPU does: between two timestamps where its device has them, else by the clock, many runs to a wait. */
import { MAP_READ, usage } from './constants.js';

/** Adds one run of the work to an encoder. */
type RecordRun = (encoder: GPUCommandEncoder) => void;

interface TimingOptions {
  /** How long a sample takes, at least: all its runs together. Default 50. */
  readonly sampleMs?: number;
}

/** Work whose samples have their number of runs. */
export interface TimedWork {
  /** Runs in a sample. */
  readonly repeats: number;
  /** Milliseconds of one run: the mean of one sample. */
  sample(): Promise<number>;
}

/**
 * Runs between two timestamps, at most. They lie in one submit, so that the GPU does not wait for the host; and parameters of
 * a backend must live until then.
 */
const MOST_REPEATS = 256;
/** Submits that are waited for together, at most. */
const MOST_SUBMITS = 16;
/** Where runs are so short, one goes before those that are timed: it finds the GPU's caches full of what another left there. */
const SHORT_MS = 20;

/** Large enough that what the host does for each copy is little beside the copy. */
const PROBE_BYTES = 2 ** 26;
const PROBE_MS = 20;
const MOST_PROBES = 4096;

const TIMESTAMP_BYTES = 8;
const BEGIN = 0;
const END = 1;

/**
 * Writes timestamps between passes that others begin. Each is that of the end of a pass of its own: it waits for all that
 * goes before, which the beginning of a pass does not. The pass dispatches something, as Metal leaves out one that is empty,
 * and its timestamps are 0 then.
 */
class Marks {
  readonly #pipeline: GPUComputePipeline;
  readonly #querySet: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #results: GPUBuffer;

  constructor(device: GPUDevice) {
    const module = device.createShaderModule({ label: 'fp8-kv mark', code: '@compute @workgroup_size(1) fn mark() {}' });
    this.#pipeline = device.createComputePipeline({ label: 'fp8-kv mark', layout: 'auto', compute: { module, entryPoint: 'mark' } });
    this.#querySet = device.createQuerySet({ label: 'fp8-kv timestamps', type: 'timestamp', count: 2 });
    const size = 2 * TIMESTAMP_BYTES;
    this.#resolved = device.createBuffer({ label: 'fp8-kv timestamps', size, usage: usage.queryResolve | usage.copySrc });
    this.#results = device.createBuffer({ label: 'fp8-kv timestamps', size, usage: usage.mapRead | usage.copyDst });
  }

  write(encoder: GPUCommandEncoder, index: typeof BEGIN | typeof END): void {
    const pass = encoder.beginComputePass({ label: 'fp8-kv mark', timestampWrites: { querySet: this.#querySet, endOfPassWriteIndex: index } });
    pass.setPipeline(this.#pipeline);
    pass.dispatchWorkgroups(1);
    pass.end();
  }

  resolve(encoder: GPUCommandEncoder): void {
    encoder.resolveQuerySet(this.#querySet, 0, 2, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#results, 0, this.#results.size);
  }

  /** Milliseconds from the first to the second; 0 or less where the device wrote no such thing. */
  async read(): Promise<number> {
    await this.#results.mapAsync(MAP_READ);
    const [begin, end] = new BigUint64Array(this.#results.getMappedRange().slice(0));
    this.#results.unmap();
    return begin === 0n ? 0 : Number(end - begin) / 1e6;
  }

  destroy(): void {
    this.#querySet.destroy();
    this.#resolved.destroy();
    this.#results.destroy();
  }
}

/** Milliseconds of one measurement, by the clock and between the timestamps. */
interface Span {
  readonly clock: number;
  readonly marked: number;
}

/**
 * Times work on a device of the caller's. With timestamps a sample is what the GPU takes for a row of runs; by the clock it
 * is what passes from their submit until the GPU has done them, which holds the way there and back once.
 */
export class GpuTimer {
  readonly #device: GPUDevice;
  #marks: Marks | undefined;

  private constructor(device: GPUDevice) {
    this.#device = device;
    if (device.features.has('timestamp-query')) this.#marks = new Marks(device);
  }

  /** Timestamps are taken where the device has the feature `timestamp-query` and they agree with the clock. */
  static async open(device: GPUDevice): Promise<GpuTimer> {
    const timer = new GpuTimer(device);
    if (timer.#marks && !(await timer.#marksAgree())) timer.destroy();
    return timer;
  }

  get source(): 'timestamps' | 'submits' {
    return this.#marks ? 'timestamps' : 'submits';
  }

  /** Finds out how many runs a sample needs; that also warms up the device. */
  async prepare(record: RecordRun, { sampleMs = 50 }: TimingOptions = {}): Promise<TimedWork> {
    const most = this.#marks ? MOST_REPEATS : MOST_REPEATS * MOST_SUBMITS;
    let repeats = 1;
    let perRun = await this.#perRun(record, repeats, false);
    // The first run is slower than others, and short ones are lost in the way to the GPU and back.
    while (repeats < most && perRun * repeats < sampleMs / 2) {
      repeats = Math.min(most, Math.max(repeats * 2, Math.min(repeats * 8, Math.ceil(sampleMs / perRun))));
      perRun = await this.#perRun(record, repeats, false);
    }
    repeats = Math.min(most, Math.max(1, Math.ceil(sampleMs / perRun)));
    return { repeats, sample: () => this.#perRun(record, repeats, perRun < SHORT_MS) };
  }

  /** Milliseconds of one run, ascending: the mean of each of so many samples. */
  async time(record: RecordRun, { samples = 9, ...options }: TimingOptions & { readonly samples?: number } = {}): Promise<number[]> {
    const work = await this.prepare(record, options);
    const times: number[] = [];
    for (let i = 0; i < samples; i++) times.push(await work.sample());
    return times.sort((a, b) => a - b);
  }

  async #perRun(record: RecordRun, repeats: number, warm: boolean): Promise<number> {
    const span = this.#marks ? (await this.#spanMarked(this.#marks, record, repeats, warm)).marked : await this.#spanByClock(record, repeats);
    return span / repeats;
  }

  async #spanMarked(marks: Marks, record: RecordRun, repeats: number, warm: boolean): Promise<Span> {
    const commands = this.#commands((encoder) => {
      if (warm) record(encoder);
      marks.write(encoder, BEGIN);
      for (let i = 0; i < repeats; i++) record(encoder);
      marks.write(encoder, END);
      marks.resolve(encoder);
    });
    const clock = await this.#submit([commands]);
    return { clock, marked: await marks.read() };
  }

  #spanByClock(record: RecordRun, repeats: number): Promise<number> {
    const buffers: GPUCommandBuffer[] = [];
    for (let left = repeats; left > 0; left -= MOST_REPEATS) {
      buffers.push(this.#commands((encoder) => {
        for (let i = Math.min(left, MOST_REPEATS); i > 0; i--) record(encoder);
      }));
    }
    return this.#submit(buffers);
  }

  #commands(record: RecordRun): GPUCommandBuffer {
    const encoder = this.#device.createCommandEncoder({ label: 'fp8-kv timing' });
    record(encoder);
    return encoder.finish();
  }

  /**
   * Milliseconds until the GPU has done it.
   * @throws Error where WebGPU refuses it: nothing was done then
   */
  async #submit(buffers: readonly GPUCommandBuffer[]): Promise<number> {
    const { queue } = this.#device;
    this.#device.pushErrorScope('validation');
    const start = performance.now();
    for (const buffer of buffers) queue.submit([buffer]);
    const refusal = this.#device.popErrorScope();
    await queue.onSubmittedWorkDone();
    const clock = performance.now() - start;
    const error = await refusal;
    if (error) throw new Error(`WebGPU refused what was to be timed: ${error.message}`);
    return clock;
  }

  /** Copies take as long by the timestamps as by the clock, which holds the way there and back besides. */
  async #marksAgree(): Promise<boolean> {
    const buffer = (): GPUBuffer => this.#device.createBuffer({ label: 'fp8-kv probe', size: PROBE_BYTES, usage: usage.copySrc | usage.copyDst });
    const [from, to] = [buffer(), buffer()];
    let span: Span = { clock: 0, marked: 0 };
    for (let copies = 1; copies <= MOST_PROBES && span.clock < PROBE_MS; copies *= 2) {
      span = await this.#spanMarked(this.#marks!, (encoder) => encoder.copyBufferToBuffer(from, 0, to, 0, PROBE_BYTES), copies, false);
    }
    from.destroy();
    to.destroy();
    return span.marked > span.clock / 4 && span.marked < span.clock * 1.1;
  }

  /** Later runs are timed by the clock. */
  destroy(): void {
    this.#marks?.destroy();
    this.#marks = undefined;
  }
}
