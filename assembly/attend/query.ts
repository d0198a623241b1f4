/**
 * Queries made ready for products with codes. Bounded.
 *
 * FP8 codes are multiplied as value · 2^-unit (formats/), so the other factor takes the 2^unit: a query is scaled to
 * 2^bias · [1, 2), whatever its size, and its scores' factor undoes that. Neither the largest query overflows, nor is a
 * product of an FP8 value with an element above 2^-100 of the largest an f32 denormal, which plain SIMD computes eight times
 * slower; what is below, or below 2^-107, is taken for 0. So the products are the same numbers under any bias.
 *
 * Given scales of K are part of that factor, too. Where each channel has its own, they are multiplied into the query first:
 * divided by a power of two, which goes to the factor, so that no large query overflows.
 */
import { ROW_BYTES } from "./memory";
import { rowAt } from "./rows";
import { AttendParams, SideParams } from "../../build/params";

/** 2^exponent, for exponents of normal numbers. */
@inline
export function powerOfTwo(exponent: i32): f32 {
  return reinterpret<f32>((exponent + 127) << 23);
}

/** The exponent field of the largest lane, of f32 without their signs. */
@inline
export function largestExponentOf(bits: v128): i32 {
  const two = i32x4.max_s(bits, v128.shuffle<i32>(bits, bits, 2, 3, 0, 1));
  return max(i32x4.extract_lane(two, 0), i32x4.extract_lane(two, 1)) >> 23;
}

/** The largest exponent field among n values' (a multiple of 4), as it stands in their bits. */
function largestExponent(x: usize, n: i32): i32 {
  const exponents = i32x4.splat(0x7f800000);
  let four = i32x4.splat(0);
  for (const end = x + (<usize>n << 2); x < end; x += 16) four = i32x4.max_s(four, v128.and(v128.load(x), exponents));
  return largestExponentOf(four);
}

/** One row of `bytes`, times a power of two; elements smaller than `least` (bits of a magnitude) become 0. */
function scaleRow(q: usize, bytes: usize, by: f32, least: i32, scaled: usize): void {
  const factor = f32x4.splat(by);
  const smallest = i32x4.splat(least);
  const positive = i32x4.splat(0x7fffffff);
  for (let at: usize = 0; at < bytes; at += 16) {
    const x = v128.load(q + at);
    const tiny = i32x4.lt_s(v128.and(x, positive), smallest);
    v128.store(scaled + at, f32x4.mul(v128.andnot(x, tiny), factor));
  }
}

/** x · (scales · by), element by element. */
function multiplyChannels(x: usize, bytes: usize, scales: usize, by: f32, products: usize): void {
  const factor = f32x4.splat(by);
  for (let at: usize = 0; at < bytes; at += 16) v128.store(products + at, f32x4.mul(v128.load(x + at), f32x4.mul(v128.load(scales + at), factor)));
}

/**
 * The queries of n rows, with zeros in the rows that fill up the last four.
 * @param bias 0: K is not FP8, and queries stay as they are
 * @param kScales the head's given scale, or one for each channel
 */
export function scaleQueries(p: AttendParams, rows: usize, n: i32, scaled: usize, bias: i32, kScales: usize): void {
  const bytes = <usize>p.dim << 2;
  const perChannel = changetype<SideParams>(p.k).perChannel != 0;
  // Bounded so that the power and its inverse are normal.
  const power = perChannel ? max(1, min(252, largestExponent(kScales, p.dim))) - 126 : 0;
  // In f64, where no part of a factor that is itself in range overflows.
  const factor = <f64>p.softmaxScale * <f64>(perChannel ? powerOfTwo(power) : load<f32>(kScales));
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    const to = scaled + <usize>r * ROW_BYTES;
    let q = row.q;
    if (perChannel) {
      multiplyChannels(q, bytes, kScales, powerOfTwo(-power), to);
      q = to;
    }
    row.factor = <f32>factor;
    if (bias == 0) {
      if (q != to) memory.copy(to, q, bytes);
      continue;
    }
    // The bounds keep 2^(bias − exponent) and the factor normal for any bias up to 120.
    const exponent = max(120, min(254, largestExponent(q, p.dim))) - 127;
    scaleRow(q, bytes, powerOfTwo(bias - exponent), (exponent + 27) << 23, to);
    row.factor = <f32>(factor * <f64>powerOfTwo(exponent));
  }
  for (let r = n; (r & 3) != 0; r++) memory.fill(scaled + <usize>r * ROW_BYTES, 0, bytes);
}
