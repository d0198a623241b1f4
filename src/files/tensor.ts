/** A tensor as it lies in a file, and its elements as typed arrays. */
import type { FloatDtype } from '../formats.js';

/** Bytes per element of each dtype. */
export const dtypeBytes = {
  BOOL: 1, U8: 1, I8: 1, F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1,
  I16: 2, U16: 2, F16: 2, BF16: 2,
  I32: 4, U32: 4, F32: 4,
  I64: 8, U64: 8, F64: 8, C64: 8,
} as const;

export type SafetensorsDtype = keyof typeof dtypeBytes;

/** What dtypes of unquantized values are called in files, and the way back. */
export const fileDtypes: { readonly [D in FloatDtype]: SafetensorsDtype } = { f32: 'F32', f16: 'F16', bf16: 'BF16' };
export const valueDtypes: { readonly [dtype: string]: FloatDtype } = { F32: 'f32', F16: 'f16', BF16: 'bf16' };

export interface Tensor {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** The elements in row-major order, little endian. A parsed tensor's is a view onto the file's bytes. */
  readonly data: Uint8Array;
}

/**
 * The elements of an F32 tensor: a view where the data is aligned, else a copy. The machine is taken to be little endian.
 * @param argument what to call the tensor in the error
 * @throws TypeError for any other dtype
 */
export function float32(tensor: Tensor, argument = 'tensor'): Float32Array {
  expectDtype(tensor, ['F32'], argument);
  const data = aligned(tensor.data, 4);
  return new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
}

/**
 * As {@link float32}, for I32, and for I64, which torch and numpy have for integers: always a copy then.
 * @throws RangeError for a number of more than 32 bits
 */
export function int32(tensor: Tensor, argument = 'tensor'): Int32Array {
  expectDtype(tensor, ['I32', 'I64'], argument);
  if (tensor.dtype === 'I64') return narrowed(tensor.data, argument);
  const data = aligned(tensor.data, 4);
  return new Int32Array(data.buffer, data.byteOffset, data.byteLength / 4);
}

/** As {@link float32}, for U16 and for the bits of F16 and BF16. */
export function uint16(tensor: Tensor, argument = 'tensor'): Uint16Array {
  expectDtype(tensor, ['F16', 'BF16', 'U16'], argument);
  const data = aligned(tensor.data, 2);
  return new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2);
}

/** As {@link float32}, for FP8 codes and the other 8-bit dtypes: always a view. */
export function uint8(tensor: Tensor, argument = 'tensor'): Uint8Array {
  expectDtype(tensor, ['F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'U8', 'I8', 'BOOL'], argument);
  return tensor.data;
}

/** @throws RangeError for an unknown dtype, a shape that is none, or data whose length is not that of the two */
export function checkTensor(argument: string, { dtype, shape, data }: Tensor): void {
  if (!Object.hasOwn(dtypeBytes, dtype)) throw new RangeError(`"${argument}" expected a dtype of ${Object.keys(dtypeBytes).join(', ')}, got ${dtype}`);
  if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    throw new RangeError(`"${argument}" expected a shape of non-negative integers, got ${showShape(shape)}`);
  }
  const need = byteCount(dtype, shape);
  if (data.byteLength !== need) throw new RangeError(`"${argument}" expected ${need} bytes for ${dtype} ${showShape(shape)}, got ${data.byteLength}`);
}

/** The bytes of a tensor, or Infinity where they are beyond 2^53 - 1, also before a size of 0. */
export function byteCount(dtype: SafetensorsDtype, shape: readonly number[]): number {
  let count: number = dtypeBytes[dtype];
  for (const size of shape) {
    count *= size;
    if (count > Number.MAX_SAFE_INTEGER) return Infinity;
  }
  return count;
}

/** A shape for messages: `[2, 3]`, cut short where a hostile file makes it long. */
export function showShape(shape: readonly number[]): string {
  return shape.length > 16 ? `[${shape.slice(0, 16).join(', ')}, …]` : `[${shape.join(', ')}]`;
}

/** A string from a file for messages: quoted, escaped, cut short. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

function narrowed(data: Uint8Array, argument: string): Int32Array {
  const bytes = aligned(data, 8);
  return Int32Array.from(new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8), (wide, i) => {
    if (BigInt.asIntN(32, wide) !== wide) throw new RangeError(`"${argument}[${i}]" expected a number of 32 bits, got ${wide}`);
    return Number(wide);
  });
}

function expectDtype({ dtype }: Tensor, expected: readonly SafetensorsDtype[], argument: string): void {
  if (!expected.includes(dtype)) throw new TypeError(`"${argument}" expected ${expected.join(' or ')}, got ${dtype}`);
}

/** The same bytes at an offset that a typed array of `elementBytes` accepts. */
function aligned(data: Uint8Array, elementBytes: number): Uint8Array {
  return data.byteOffset % elementBytes === 0 ? data : new Uint8Array(data);
}
