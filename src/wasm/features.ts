/** What this engine's WebAssembly can do, asked of tiny modules. */

/** Builds of one source: with relaxed SIMD, attention's products and sums are fused. Codec and quantization are the same. */
export type SimdBuild = 'baseline' | 'relaxed';

const HEADER = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
/** One function of type [] → [v128]. */
const V128_FUNCTION = [1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0];

/** (func (result v128) (i8x16.splat (i32.const 0))) */
const SIMD = [10, 8, 1, 6, 0, 0x41, 0, 0xfd, 0x0f, 0x0b];
/** (func (result v128) (i8x16.relaxed_swizzle (i8x16.splat (i32.const 1)) (i8x16.splat (i32.const 2)))) */
const RELAXED_SIMD = [10, 15, 1, 13, 0, 0x41, 1, 0xfd, 0x0f, 0x41, 2, 0xfd, 0x0f, 0xfd, 0x80, 2, 0x0b];

const validates = (body: readonly number[]): boolean => WebAssembly.validate(Uint8Array.from([...HEADER, ...V128_FUNCTION, ...body]));

export interface WasmFeatures {
  readonly simd: boolean;
  readonly relaxedSimd: boolean;
  /** SharedArrayBuffer, which memory shared between threads needs. */
  readonly sharedMemory: boolean;
}

export function wasmFeatures(): WasmFeatures {
  return { simd: validates(SIMD), relaxedSimd: validates(RELAXED_SIMD), sharedMemory: typeof SharedArrayBuffer === 'function' };
}
