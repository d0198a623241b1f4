/** Values at which encoders go wrong, if they do: what lies at and beside every boundary between two codes, and what is no ordinary number. */
import type { Random } from '../align/random.js';
import { floatDtypes, formats, type FloatArray, type FloatDtype, type QuantizedFormat } from '../formats.js';
import { roundHalves } from '../layouts/half-scales.js';
import { decode } from '../wasm/codec.js';
import { roundToHalf } from './encoders.js';

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** Bits of the largest exponent, that of infinity and NaN, and of one mantissa. */
const infinities: { readonly [D in FloatDtype]: number } = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 };
const mantissas: { readonly [D in FloatDtype]: number } = { f32: 23, f16: 10, bf16: 7 };

/** The bits of a number of at least 0; what a dtype has no number for is rounded. */
function bitsIn(dtype: FloatDtype, x: number): number {
  float[0] = dtype === 'f16' ? roundToHalf(x) : x;
  if (dtype === 'f32') return word[0];
  if (dtype === 'bf16') return word[0] >>> 16;
  return roundHalves(float)[0];
}

/** All codes' magnitudes, and the middle between each and the next: beyond the largest, where rounding would go on to if it could. */
function boundaries(format: QuantizedFormat): number[] {
  if (format === 'int8') return Array.from({ length: 2 * 129 }, (_, i) => i / 2);
  const { max } = formats[format];
  const magnitudes = [...decode(Uint8Array.from({ length: 128 }, (_, code) => code), format)].filter((value) => value <= max);
  const next = [...magnitudes.slice(1), 2 * max - magnitudes[magnitudes.length - 2]];
  return magnitudes.flatMap((value, i) => [value, (value + next[i]) / 2]).concat(2 * max);
}

/** What a value is before it has a scale and a dtype: a boundary and the number of steps beside it, or bits. */
type Kind = { readonly unit: number; readonly beside: number } | { readonly bits: number };

function kindsOf(format: QuantizedFormat, dtype: FloatDtype): Kind[] {
  const [infinity, mantissa] = [infinities[dtype], 1 << mantissas[dtype]];
  // Zero, the smallest and largest denormals and normals, infinity, and NaN: quiet, with a payload, and with all of it.
  const special = [0, 1, mantissa - 1, mantissa, infinity - 1, infinity, infinity | (mantissa / 2), infinity | 1, infinity | (mantissa - 1), infinity | (mantissa * 3) / 4];
  return [...boundaries(format).flatMap((unit) => [-1, 0, 1].map((beside) => ({ unit, beside }))), ...special.map((bits) => ({ bits }))];
}

function magnitudeBits(kind: Kind, dtype: FloatDtype, scale: number): number {
  if ('bits' in kind) return kind.bits;
  return Math.max(0, Math.min(infinities[dtype], bitsIn(dtype, kind.unit * scale) + kind.beside));
}

/**
 * So many values, of every kind in an order of their own; where there is room, the rest is random.
 * @param scaleAt what value i is to be divided by
 */
export function hardValues(numbers: Random, format: QuantizedFormat, dtype: FloatDtype, length: number, scaleAt: (i: number) => number): FloatArray {
  const kinds = kindsOf(format, dtype).flatMap((kind) => [0, 1].map((sign) => ({ kind, sign })));
  for (let i = kinds.length - 1; i > 0; i--) {
    const j = numbers.integer(i + 1);
    [kinds[i], kinds[j]] = [kinds[j], kinds[i]];
  }
  const wide = floatDtypes[dtype].bytes === 4;
  const bits = wide ? new Uint32Array(length) : new Uint16Array(length);
  const sign = wide ? 31 : 15;
  for (let i = 0; i < length; i++) {
    if (i < kinds.length) bits[i] = magnitudeBits(kinds[i].kind, dtype, scaleAt(i)) + kinds[i].sign * 2 ** sign;
    else if (numbers.integer(4) === 0) bits[i] = numbers.bits();
    else bits[i] = bitsIn(dtype, Math.abs(numbers.normal()) * 2 ** (numbers.integer(16) - 8) * scaleAt(i)) + numbers.integer(2) * 2 ** sign;
  }
  return bits instanceof Uint16Array ? bits : new Float32Array(bits.buffer);
}
