/** The workers of a backend, and the calling thread's part in a call: publishing, computing along, waiting. */
import { WorkerLostError } from '../../errors.js';
import { UNIT_CUTS, UNIT_WORDS } from '../../layout.js';
import { WASM_PAGE } from '../memory.js';
import { mayWait, spawn, type Thread } from './spawn.js';
import { maxSplits, type Units } from './units.js';
import { takeUnits, words, type UnitKernels } from './worker.js';

/** How long the caller looks for the last units' end before it waits for a message, which takes a turn of the event loop. */
const SPIN_MS = 0.1;

export class Pool {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #memory: WebAssembly.Memory;
  readonly #threads: Thread[] = [];
  readonly #kernels: UnitKernels;
  /** Whether the calling thread computes too. */
  readonly #joins: boolean;
  readonly #onLost: () => void;
  #waiting: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #over = false;

  /**
   * Starts the workers.
   * @param threads how many compute: workers only where the calling thread may not wait, else it is one of them
   * @param onLost called when a worker has ended and the pool with it
   */
  constructor(kernels: UnitKernels, module: WebAssembly.Module, memory: WebAssembly.Memory, threads: number, onLost: () => void) {
    this.#kernels = kernels;
    this.#memory = memory;
    this.#joins = mayWait();
    this.#onLost = onLost;
    this.#control = new Int32Array(new SharedArrayBuffer(4 * (words.splits + maxSplits(threads))));
    try {
      for (let thread = this.#joins ? 1 : 0; thread < threads; thread++) {
        this.#threads.push(spawn({ module, memory, control: this.#control, thread }, () => this.#look(), (reason) => this.#lose(reason)));
      }
    } catch (error) {
      this.end();
      throw error;
    }
  }

  /**
   * Computes units that lie in memory.
   * @param params address of the first thread's attendParams; the others' follow, each `stride` bytes on
   * @returns undefined when all is done, else a promise
   */
  run({ units, splits }: Units, params: number, stride: number): Promise<void> | undefined {
    const control = this.#control;
    const count = units.length / UNIT_WORDS;
    for (let split = 0; split * UNIT_WORDS < splits.length; split++) Atomics.store(control, words.splits + split, splits[split * UNIT_WORDS + UNIT_CUTS]);
    Atomics.store(control, words.params, params);
    Atomics.store(control, words.stride, stride);
    Atomics.store(control, words.pages, this.#memory.buffer.byteLength / WASM_PAGE);
    Atomics.store(control, words.pending, count);
    Atomics.store(control, words.left, count);
    Atomics.add(control, words.calls, 1);
    Atomics.notify(control, words.calls);
    if (this.#joins) {
      try {
        takeUnits(this.#kernels, control, 0);
      } catch (error) {
        this.#lose(error);
        throw error;
      }
      const start = performance.now();
      while (Atomics.load(control, words.pending) > 0 && performance.now() - start < SPIN_MS);
    }
    if (Atomics.load(control, words.pending) === 0) return undefined;
    for (const thread of this.#threads) thread.keepAlive(true);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#look();
    });
  }

  /**
   * Ends the wait where all is done; else has the last worker post. Each side first says what it has done, then looks at
   * what the other has: one of them sees both. A message that comes too early only has us look again.
   */
  #look(): void {
    if (!this.#waiting) return;
    Atomics.store(this.#control, words.waiting, 1);
    if (Atomics.load(this.#control, words.pending) > 0) return;
    Atomics.store(this.#control, words.waiting, 0);
    const { resolve } = this.#waiting;
    this.#waiting = undefined;
    for (const thread of this.#threads) thread.keepAlive(false);
    resolve();
  }

  /** A worker has ended by itself, perhaps with a unit in hand: nobody may take more, and the call is given up. */
  #lose(reason: unknown): void {
    if (this.#over) return;
    this.end();
    this.#onLost();
    this.#waiting?.reject(new WorkerLostError({ cause: reason }));
    this.#waiting = undefined;
  }

  /** Ends the workers wherever they are. */
  end(): void {
    this.#over = true;
    Atomics.store(this.#control, words.left, 0);
    for (const thread of this.#threads) thread.end();
  }
}
