/**
 * What every thread does: it takes units of attention until none is left. Imports nothing, because scripts/build.ts also
 * makes it the source of the workers.
 *
 * Threads agree on one Int32Array in shared memory, with sequentially consistent operations only; that also orders what
 * they write to WebAssembly memory. A call is published by storing `left`, after everything else; a unit belongs to who has
 * subtracted it from `left`. So a worker that wakes late takes part in whatever call is on, or finds nothing.
 */

/** Places in the control array. */
export const words = {
  /** Counts calls: what idle workers wait on. */
  calls: 0,
  /** Units that nobody has taken. They are taken from the last to the first; below 0 there is none. */
  left: 1,
  /** Units that are not finished. */
  pending: 2,
  /** 1 while the caller waits for a message that the last unit is finished. */
  waiting: 3,
  /** Address of the first thread's attendParams; the other threads' follow. */
  params: 4,
  /** Bytes from one thread's attendParams to the next. */
  stride: 5,
  /** Pages of memory when the call was published. */
  pages: 6,
  /** Pieces that are not finished, for each split. */
  splits: 7,
} as const;

/** The kernels that work on units: assembly/attend/units.ts. */
export interface UnitKernels {
  /** @returns the split that the unit is a piece of, or -1 */
  attendUnit(params: number, unit: number): number;
  mergeSplit(params: number, split: number): void;
}

/** What a worker is given to start with. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly control: Int32Array<SharedArrayBuffer>;
  /** Which thread it is; the calling thread is 0 where it computes too. */
  readonly thread: number;
}

/**
 * Computes units until none is left.
 * @param begin called before each unit, when it is known which call it belongs to
 * @param finished called where this thread has finished a call's last unit
 */
export function takeUnits(kernels: UnitKernels, control: Int32Array<SharedArrayBuffer>, thread: number, begin?: () => void, finished?: () => void): void {
  for (;;) {
    const unit = Atomics.sub(control, words.left, 1) - 1;
    if (unit < 0) return;
    begin?.();
    const params = Atomics.load(control, words.params) + thread * Atomics.load(control, words.stride);
    const split = kernels.attendUnit(params, unit);
    if (split >= 0 && Atomics.sub(control, words.splits + split, 1) === 1) kernels.mergeSplit(params, split);
    if (Atomics.sub(control, words.pending, 1) === 1) finished?.();
  }
}

/**
 * Has this thread learn of memory that other threads have grown, once a call needs it. V8 tells each thread, but not always
 * one that is just starting: its instance then keeps the size that memory had, and `memory.fill` and `memory.copy` beyond
 * trap. Growing by nothing tells an instance what the size is now.
 */
export function sizeWatcher(memory: WebAssembly.Memory, control: Int32Array<SharedArrayBuffer>): () => void {
  let known = 0;
  return () => {
    const pages = Atomics.load(control, words.pages);
    if (pages === known) return;
    memory.grow(0);
    known = pages;
  };
}

/** A worker's life: it ends when it is terminated. */
export function serve({ module, memory, control, thread }: WorkerStart, post: () => void): void {
  const kernels = new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as UnitKernels;
  const begin = sizeWatcher(memory, control);
  const finished = (): void => {
    if (Atomics.exchange(control, words.waiting, 0) === 1) post();
  };
  for (;;) {
    // Read before looking for units: a call that is published in between then does not let the worker sleep.
    const calls = Atomics.load(control, words.calls);
    takeUnits(kernels, control, thread, begin, finished);
    Atomics.wait(control, words.calls, calls);
  }
}
