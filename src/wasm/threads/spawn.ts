/** A worker of this engine: Node's from `worker_threads`, else the web's. No other file knows which. */
import { workerSource } from '../../generated/worker.js';
import type { WorkerStart } from './worker.js';

export interface Thread {
  /** Keeps the process alive, or no longer does. It does not to begin with; a page is not concerned. */
  keepAlive(on: boolean): void;
  /** Ends it wherever it is. */
  end(): void;
}

/** Not imported: bundlers for browsers would look for the module. */
const node = globalThis.process?.getBuiltinModule?.('node:worker_threads');

export const hasWorkers = node !== undefined || typeof Worker === 'function';

/** Whether this thread may wait: all but a page's main thread. */
export function mayWait(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 0);
    return true;
  } catch {
    return false;
  }
}

/** What a page may be told to take in place of addresses, so that no text from elsewhere becomes a script. TypeScript does not know it. */
interface TrustedTypes {
  createPolicy(name: string, rules: { createScriptURL(url: string): string }): { createScriptURL(url: string): string };
}

/** One for all workers: it stays as long as the page. */
let url: string | undefined;

/** The worker's source as an address, which a page that requires trusted types takes from the policy `fp8-kv`. */
function workerUrl(): string {
  const source = `${workerSource}onmessage = ({ data }) => serve(data, () => postMessage(0));`;
  const address = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  const { trustedTypes } = globalThis as { trustedTypes?: TrustedTypes };
  try {
    return trustedTypes?.createPolicy('fp8-kv', { createScriptURL: (same) => same }).createScriptURL(address) ?? address;
  } catch {
    // A page that allows other policies only need not require any.
    return address;
  }
}

/**
 * @param onMessage called when the worker posts
 * @param onEnd called with the reason when it has ended, whoever ended it; perhaps more than once
 */
export function spawn(start: WorkerStart, onMessage: () => void, onEnd: (reason: unknown) => void): Thread {
  if (node) {
    const source = `${workerSource}const { parentPort, workerData } = require('node:worker_threads');\nserve(workerData, () => parentPort.postMessage(0));`;
    // execArgv: what the process preloads (a TypeScript loader, say) is of no use here, and slow to start.
    const worker = new node.Worker(source, { eval: true, execArgv: [], workerData: start, name: `fp8-kv ${start.thread}` });
    worker.on('message', onMessage).on('error', onEnd).on('exit', (code) => onEnd(new Error(`exit code ${code}`)));
    worker.unref();
    return { keepAlive: (on) => (on ? worker.ref() : worker.unref()), end: () => void worker.terminate() };
  }
  url ??= workerUrl();
  const worker = new Worker(url, { name: `fp8-kv ${start.thread}` });
  worker.addEventListener('message', onMessage);
  worker.addEventListener('messageerror', () => onEnd(new Error('what it is given did not reach it')));
  // Without a message it did not start.
  worker.addEventListener('error', ({ message }) => onEnd(new Error(message || 'a Content Security Policy must allow worker-src blob:')));
  worker.postMessage(start);
  return { keepAlive: () => {}, end: () => worker.terminate() };
}
