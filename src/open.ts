import type { Backend } from './backend.js';
import { wasmBackend } from './wasm/backend.js';

/** The fastest backend of this machine. Today that is WebAssembly SIMD everywhere. */
export async function openBackend(): Promise<Backend> {
  return wasmBackend();
}
