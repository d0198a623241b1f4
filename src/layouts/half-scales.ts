/** Numbers of f16, scales that are kept as such among them, as f32 words: every bit of one is found again in the other, NaN's too. */
import { describe, type FloatArray, type FloatDtype } from '../formats.js';

const f32 = new Float32Array(1);
const f32Bits = new Uint32Array(f32.buffer);

/** The bits of f16 as those of f32. */
function widenBits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >>> 10) & 31;
  if (exponent === 0) {
    f32[0] = (half & 0x3ff) * 2 ** -24;
    return (sign | f32Bits[0]) >>> 0;
  }
  const wide = exponent === 31 ? 255 : exponent + 112;
  return (sign | (wide << 23) | ((half & 0x3ff) << 13)) >>> 0;
}

/** The bits of f32 as those of f16 where it has that number: the caller looks whether it has. */
function narrowBits(bits: number): number {
  const exponent = (bits >>> 23) & 255;
  const mantissa = (bits >>> 13) & 0x3ff;
  const sign = (bits >>> 16) & 0x8000;
  if (exponent === 255) return sign | 0x7c00 | mantissa;
  if (exponent > 112) return sign | (((exponent - 112) & 31) << 10) | mantissa;
  f32Bits[0] = bits & 0x7fffffff;
  return sign | (f32[0] * 2 ** 24);
}

/** Numbers of f16, by their bits, as f32. */
export function widenHalves(bits: Uint16Array): Float32Array {
  const values = new Float32Array(bits.length);
  new Uint32Array(values.buffer).set(Uint32Array.from(bits, widenBits));
  return values;
}

/** Bits of f32 → those of the nearest f16, ties to even; NaN becomes 0x7E00: `narrowF16` of wgsl/formats/half.wgsl. */
function roundBits(bits: number): number {
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7e00;
  // 65536 is where f16 has its infinity.
  const a = Math.min(magnitude, 0x47800000);
  const exponent = Math.max(a >>> 23, 113);
  const shift = Math.min(13 + exponent - (a >>> 23), 25);
  const mantissa = (a & 0x7fffff) | 0x800000;
  const rounded = (mantissa + (1 << (shift - 1)) - 1 + ((mantissa >>> shift) & 1)) >>> shift;
  return ((bits >>> 16) & 0x8000) | (((exponent - 113) << 10) + rounded);
}

/** Numbers of f32 as bits of the nearest f16. */
export function roundHalves({ buffer, byteOffset, length }: Float32Array): Uint16Array {
  const words = new Uint32Array(buffer, byteOffset, length);
  const halves = new Uint16Array(length);
  // A loop: `from` with a function takes ten times as long.
  for (let i = 0; i < length; i++) halves[i] = roundBits(words[i]);
  return halves;
}

/** Unquantized values in f32, which has all of them. */
export function widen(values: FloatArray, dtype: FloatDtype): Float32Array {
  if (values instanceof Float32Array) return values;
  return dtype === 'f16' ? widenHalves(values) : new Float32Array(Uint32Array.from(values, (bits) => bits << 16).buffer);
}

/** Scales of ferrum's `KvCacheQuant`, f16 bits, as f32. */
export function ferrumScales(bits: Uint16Array): Float32Array {
  if (!(bits instanceof Uint16Array)) throw new TypeError(`"bits" expected a Uint16Array (f16), got ${describe(bits)}`);
  return widenHalves(bits);
}

/**
 * The reverse, of scales that are f16 already: as the recipe `ferrum-int8` and `scalePrecision: 'f16'` leave them.
 * @throws RangeError naming the first scale that f16 does not have
 */
export function ferrumScaleBits(scales: Float32Array): Uint16Array {
  if (!(scales instanceof Float32Array)) throw new TypeError(`"scales" expected a Float32Array, got ${describe(scales)}`);
  const words = new Uint32Array(scales.buffer, scales.byteOffset, scales.length);
  const bits = new Uint16Array(scales.length);
  for (const [i, word] of words.entries()) {
    bits[i] = narrowBits(word);
    if (widenBits(bits[i]) !== word) throw new RangeError(`"scales[${i}]" expected a number of f16, got ${scales[i]}`);
  }
  return bits;
}
