/** Fuzzes one reader for a time, and says what was found. */
import { Worker } from 'node:worker_threads';

export interface Task {
  /** The module that has the reader among its `readers`. */
  readonly module: string;
  readonly name: string;
  /** Files have this seed, and those that follow. */
  readonly seed: number;
  readonly seconds: number;
  /** How many files were read. */
  readonly at: Int32Array;
}

export interface Finding {
  /** How many files were read. */
  files: number;
  /** What is wrong, with the seed of the file. */
  fault: string | undefined;
}

/** Threads do not inherit what lets this one import TypeScript. */
const begin = `import(${JSON.stringify(import.meta.resolve('tsx/esm/api'))}).then(({ register }) => {
  register();
  return import(${JSON.stringify(new URL('worker.ts', import.meta.url).href)});
})`;

/** A file that takes longer hangs. Ordinary ones take less than a millisecond; machines may be busy. */
const HANG_SECONDS = 10;

export function fuzz(module: string, name: string, seed: number, seconds: number, hangSeconds = HANG_SECONDS): Promise<Finding> {
  const at = new Int32Array(new SharedArrayBuffer(4)).fill(-1);
  const task: Task = { module, name, seed, seconds, at };
  return new Promise((resolve) => {
    // Above the limit of its heap, a worker ends with an error.
    const worker = new Worker(begin, { eval: true, workerData: task, resourceLimits: { maxOldGenerationSizeMb: 512 } });
    let seen = -1;
    let since = Date.now();
    const finish = (finding: Finding): void => {
      clearInterval(watch);
      void worker.terminate().then(() => resolve(finding));
    };
    const watch = setInterval(() => {
      const now = Atomics.load(at, 0);
      if (now !== seen || now < 0) [seen, since] = [now, Date.now()];
      else if (Date.now() - since > 1000 * hangSeconds) finish({ files: now, fault: `file ${seed + now}: took longer than ${hangSeconds} s` });
    }, 100);
    worker.on('message', finish);
    worker.on('error', (error) => finish({ files: seen, fault: `file ${seed + Atomics.load(at, 0)}: the thread ended: ${error.stack}` }));
  });
}
