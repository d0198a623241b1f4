/** The compiled kernels: the only file that knows how modules are embedded and instantiated on the calling thread. */
import { instantiateSync } from '@assemblyscript/loader';
import { codecWasm } from '../generated/codec.js';
import { baseline, relaxed } from '../generated/wasm.js';
import { bytesOf } from './base64.js';
import { wasmFeatures, type SimdBuild } from './features.js';
import type { WasmMemory } from './memory.js';
import { applyPatch } from './patch.js';
import type { UnitKernels } from './threads/worker.js';

/** What assembly/codec-module.ts exports. Numbers are addresses unless named otherwise. */
export interface CodecKernels extends Record<string, unknown> {
  encode(x: number, dtype: number, n: number, codes: number, format: number, saturate: number): void;
  decode(codes: number, n: number, values: number, format: number): void;
  quantizeRows(params: number, rows: number): void;
}

/** What assembly/index.ts exports. */
export interface Kernels extends UnitKernels, Record<string, unknown> {
  widen(x: number, dtype: number, n: number, values: number): void;
  narrow(x: number, n: number, halves: number): void;
  append(params: number, tokens: number): void;
  attend(params: number): void;
}

/** The flags of an imported memory that has a largest size and is shared. */
const SHARED = 3;

/** @throws Error that says what this place lacks: engines have words of their own for that, or none */
function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes);
  } catch (cause) {
    // Too little memory.
    if (cause instanceof RangeError) throw cause;
    // The bytes are known to be right.
    const why = wasmFeatures().simd ? "a page's Content Security Policy must allow script-src 'wasm-unsafe-eval'" : 'this engine has no SIMD in WebAssembly';
    throw new Error(`the kernels cannot be compiled: ${why}`, { cause });
  }
}

/** The codec's kernels over this memory, which is not shared. */
export function instantiateCodec({ memory }: WasmMemory): CodecKernels {
  return instantiateSync<CodecKernels>(compile(bytesOf(codecWasm)), { env: { memory } }).exports;
}

const compiled = new Map<string, WebAssembly.Module>();

/** Each build is compiled once for unshared and once for shared memory, synchronously, when first asked for. */
export function compileKernels(build: SimdBuild, shared: boolean): WebAssembly.Module {
  const name = `${build} ${shared}`;
  const known = compiled.get(name);
  if (known) return known;
  const bytes = build === 'baseline' ? bytesOf(baseline.base64) : applyPatch(bytesOf(baseline.base64), bytesOf(relaxed.patch), relaxed.bytes);
  if (shared) bytes[{ baseline, relaxed }[build].sharedFlag] = SHARED;
  const module = compile(bytes);
  compiled.set(name, module);
  return module;
}

/** The kernels over this memory. */
export function instantiateKernels(memory: WasmMemory, build: SimdBuild): Kernels {
  return instantiateSync<Kernels>(compileKernels(build, memory.shared), { env: { memory: memory.memory } }).exports;
}
