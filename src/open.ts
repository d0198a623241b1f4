import type { Backend } from './backend.js';
import { threadsAvailable, wasmBackend } from './wasm/open.js';

export interface OpenOptions {
  /**
   * Threads that compute, at most. Default 1. Where there can be no more (a page that is not cross-origin isolated), it is
   * 1 all the same: `wasmBackend({ threads })` would say why.
   */
  readonly threads?: number;
}

/**
 * The fastest backend of this machine. Today that is WebAssembly SIMD everywhere.
 * @throws RangeError for a number of threads that is none
 */
export async function openBackend({ threads }: OpenOptions = {}): Promise<Backend> {
  return wasmBackend({ threads: threadsAvailable(threads) });
}
