/** The runner's WebAssembly kernels (assembly/model/), over a memory that the caller lays out. All arguments are byte addresses and counts. */
import { modelWasm } from '../generated/model.js';
import { bytesOf } from '../wasm/base64.js';

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

export function openKernels(memory: WebAssembly.Memory): Kernels {
  const module = new WebAssembly.Module(bytesOf(modelWasm));
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels;
}
