/** The demo's WebAssembly kernels (demo/assembly/), over a memory that the caller lays out. All arguments are byte addresses and counts. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface Kernels {
  /** y = x · wᵀ: x (m, k), w (n, k), y (m, n); k a multiple of 4, n at least 4. A row's bits do not depend on m. */
  matmul(x: number, w: number, y: number, m: number, n: number, k: number): void;
  /** x, y (rows, dim), weight (dim). */
  rmsnorm(x: number, weight: number, y: number, rows: number, dim: number, epsilon: number): void;
  /** x (tokens, heads, headDim), turned in place; table (tokens, cos | sin, headDim / 2). */
  rope(x: number, table: number, tokens: number, heads: number, headDim: number): void;
  /** gate = silu(gate) · up. */
  siluMul(gate: number, up: number, count: number): void;
  /** x += y. */
  add(x: number, y: number, count: number): void;
}

const wasmFile = fileURLToPath(new URL('../build/demo.wasm', import.meta.url));

export function openKernels(memory: WebAssembly.Memory): Kernels {
  if (!existsSync(wasmFile)) throw new Error(`${wasmFile} is not there: run "npm run build" first`);
  const module = new WebAssembly.Module(readFileSync(wasmFile));
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels;
}
