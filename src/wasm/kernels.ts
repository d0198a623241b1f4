/** The compiled kernels: the only file that knows how the module is embedded and instantiated on the calling thread. */
import { instantiateSync } from '@assemblyscript/loader';
import { wasmModules } from '../generated/wasm.js';
import type { SimdBuild } from './features.js';
import type { WasmMemory } from './memory.js';
import type { UnitKernels } from './threads/worker.js';

/** What assembly/index.ts exports. Numbers are addresses unless named otherwise. */
export interface Kernels extends UnitKernels, Record<string, unknown> {
  encode(x: number, dtype: number, n: number, codes: number, format: number, saturate: number): void;
  decode(codes: number, n: number, values: number, format: number): void;
  widen(x: number, dtype: number, n: number, values: number): void;
  narrow(x: number, n: number, halves: number): void;
  quantizeRows(params: number, rows: number): void;
  append(params: number, tokens: number): void;
  attend(params: number): void;
}

/** The flags of an imported memory that has a largest size and is shared. */
const SHARED = 3;

const compiled = new Map<string, WebAssembly.Module>();

/** Each build is compiled once for unshared and once for shared memory, synchronously, when first asked for. */
export function compileKernels(build: SimdBuild, shared: boolean): WebAssembly.Module {
  const name = `${build} ${shared}`;
  const known = compiled.get(name);
  if (known) return known;
  const { base64, sharedFlag } = wasmModules[build];
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  if (shared) bytes[sharedFlag] = SHARED;
  const module = new WebAssembly.Module(bytes);
  compiled.set(name, module);
  return module;
}

/** The kernels over this memory. */
export function instantiateKernels(memory: WasmMemory, build: SimdBuild): Kernels {
  return instantiateSync<Kernels>(compileKernels(build, memory.shared), { env: { memory: memory.memory } }).exports;
}
