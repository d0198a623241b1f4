/** The compiled kernels: the only file that knows how the module is embedded and instantiated. */
import { instantiateSync } from '@assemblyscript/loader';
import { wasmBase64 } from '../generated/wasm.js';
import type { SimdBuild } from './features.js';
import type { WasmMemory } from './memory.js';

/** What assembly/index.ts exports. Numbers are addresses unless named otherwise. */
export interface Kernels extends Record<string, unknown> {
  encode(x: number, dtype: number, n: number, codes: number, format: number, saturate: number): void;
  decode(codes: number, n: number, values: number, format: number): void;
  widen(x: number, dtype: number, n: number, values: number): void;
  quantizeRows(params: number, rows: number): void;
  append(params: number, tokens: number): void;
  attend(params: number): void;
}

const compiled: { [build in SimdBuild]?: WebAssembly.Module } = {};

/** The kernels over this memory. Each build is compiled once, synchronously, when first asked for. */
export function instantiateKernels(memory: WasmMemory, build: SimdBuild): Kernels {
  compiled[build] ??= new WebAssembly.Module(Uint8Array.from(atob(wasmBase64[build]), (character) => character.charCodeAt(0)));
  return instantiateSync<Kernels>(compiled[build], { env: { memory: memory.memory } }).exports;
}
