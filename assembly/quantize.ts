/**
 * Rows of values → codes and one scale per row, by recipe (src/recipe.ts). Exact: every step is one IEEE f32 operation.
 *
 * amax  = max |x|, NaN left out
 * scale = amax / max, bounded and replaced as the recipe says
 * code  = encode(x / scale), or by a factor: encode(x · factor)
 */
import { load4 } from "./codec";
import { encodeQuotients } from "./encode";
import { F16_UNIT, narrowF16, widenF16 } from "./formats/half";
import { BF16, Divide, F16, F32, Multiply } from "./types";
import { DTYPE_F16, DTYPE_F32, QuantizeParams, PRECISION_F16, PRECISION_F32, QUOTIENT_DIVIDE, QUOTIENT_RECIPROCAL, ROWS_AT_ONCE } from "../build/params";

const INFINITY_BITS: i32 = 0x7f800000;
/** 2^100: far below where encoding without tests goes wrong. */
const ORDINARY_BITS: u32 = 0x71800000;

/** Bytes of n values of the input. */
@inline
export function inputBytes(p: QuantizeParams, n: i32): usize {
  return (<usize>n) << (p.dtype == DTYPE_F32 ? 2 : 1);
}

/** Bits of an infinity of dtype T. */
@inline
function infinityOf<T>(): i32 {
  if (isFloat<T>()) return INFINITY_BITS;
  return isSigned<T>() ? 0x7f80 : 0x7c00;
}

/** Bits of the largest magnitude, which are in the order of the magnitudes; NaN are above infinity. */
@inline
function largestWord(x: usize, n: i32): i32 {
  const positive = i32x4.splat(0x7fffffff);
  let even = i32x4.splat(0);
  let odd = i32x4.splat(0);
  const end = x + (<usize>n << 2);
  do {
    even = i32x4.max_s(even, v128.and(v128.load(x), positive));
    odd = i32x4.max_s(odd, v128.and(v128.load(x, 16), positive));
    x += 32;
  } while (x < end);
  const four = i32x4.max_s(even, odd);
  const two = i32x4.max_s(four, v128.shuffle<i32>(four, four, 2, 3, 0, 1));
  return i32x4.extract_lane(i32x4.max_s(two, v128.shuffle<i32>(two, two, 1, 0, 3, 2)), 0);
}

@inline
function largestHalf(x: usize, n: i32): i32 {
  const positive = i16x8.splat(0x7fff);
  let eight = i16x8.splat(0);
  const end = x + (<usize>n << 1);
  do {
    eight = i16x8.max_s(eight, v128.and(v128.load(x), positive));
    x += 16;
  } while (x < end);
  const four = i16x8.max_s(eight, v128.shuffle<i32>(eight, eight, 2, 3, 0, 1));
  const two = i16x8.max_s(four, v128.shuffle<i32>(four, four, 1, 0, 3, 2));
  return max(i16x8.extract_lane_s(two, 0), i16x8.extract_lane_s(two, 1));
}

/** As above with NaN left out: one by one, since rows with NaN are rare. */
@inline
function largestBesideNaN<T>(x: usize, n: i32): i32 {
  let largest = 0;
  for (const end = x + <usize>n * sizeof<T>(); x < end; x += sizeof<T>()) {
    const magnitude: i32 = isFloat<T>() ? load<i32>(x) & 0x7fffffff : <i32>load<u16>(x) & 0x7fff;
    if (magnitude <= infinityOf<T>()) largest = max(largest, magnitude);
  }
  return largest;
}

/** Bits of dtype T → f32; NaN stays above infinity. */
@inline
function widenBits<T>(bits: i32): i32 {
  if (isFloat<T>()) return bits;
  if (isSigned<T>()) return bits << 16;
  return bits < infinityOf<T>() ? reinterpret<i32>(reinterpret<f32>(bits << 13) * F16_UNIT) : bits - infinityOf<T>() + INFINITY_BITS;
}

/** Bits, as f32, of the largest magnitude of a row; `besideNaN`: of those that are no NaN, else NaN is the largest. */
@inline
function largestBits<T>(x: usize, n: i32, besideNaN: bool): i32 {
  if (besideNaN) return widenBits<T>(largestBesideNaN<T>(x, n));
  return widenBits<T>(isFloat<T>() ? largestWord(x, n) : largestHalf(x, n));
}

/** The nearest f16, as f32. */
function toF16(x: f32): f32 {
  return f32x4.extract_lane(widenF16(narrowF16(f32x4.splat(x))), 0);
}

/**
 * What each row is divided by or multiplied with → p.operands, and its scale, unless that is given, → `scales`.
 * @returns whether all quotients are numbers below 2^100
 */
@inline
function measureRows<T>(p: QuantizeParams, x: usize, xStride: usize, rows: i32, scales: usize, scaleStride: usize): bool {
  const divides = p.quotient == QUOTIENT_DIVIDE;
  let ordinary = true;
  for (let row = 0; row < rows; row++) {
    const largest = largestBits<T>(x, p.groupSize, false);
    let operand: f32;
    if (p.given != 0) {
      const scale = load<f32>(scales);
      operand = divides ? scale : 1 / scale;
    } else {
      let amax = reinterpret<f32>(largest <= INFINITY_BITS ? largest : largestBits<T>(x, p.groupSize, true));
      if (amax < p.amaxFloor) amax = p.amaxFloor;
      let scale = amax / p.max;
      if (scale < p.scaleFloor) scale = p.scaleFloor;
      if (p.scalePrecision == PRECISION_F16) scale = toF16(scale);
      const replaced = scale == 0 && p.scaleIfZero != 0;
      if (replaced) scale = p.scaleIfZero;
      // What is stored as f16, and as f16 only, does not change what values are divided by.
      store<f32>(scales, p.scalePrecision == PRECISION_F32 ? scale : toF16(scale));
      if (divides) operand = scale;
      else if (p.quotient == QUOTIENT_RECIPROCAL) operand = 1 / scale;
      else operand = replaced ? 1 : p.max / amax;
    }
    store<f32>(p.operands + (<usize>row << 2), operand);
    const quotient = divides ? reinterpret<f32>(largest) / operand : reinterpret<f32>(largest) * operand;
    // As bits, NaN of either sign is above all numbers.
    ordinary = ordinary && reinterpret<u32>(quotient) < ORDINARY_BITS;
    x += xStride;
    scales += scaleStride;
  }
  return ordinary;
}

/** Up to ROWS_AT_ONCE rows: all are measured, then encoded, so that what a row's scale waits for overlaps with other rows. */
function quantizeFew<T>(p: QuantizeParams, rows: i32, x: usize, xStride: usize, codes: usize, codesStride: usize, scales: usize, scaleStride: usize): void {
  const ordinary = measureRows<T>(p, x, xStride, rows, scales, scaleStride);
  if (p.quotient == QUOTIENT_DIVIDE) encodeQuotients<T, Divide>(x, xStride, rows, p.groupSize, codes, codesStride, p.operands, ordinary, p.format, p.least);
  else encodeQuotients<T, Multiply>(x, xStride, rows, p.groupSize, codes, codesStride, p.operands, ordinary, p.format, p.least);
}

/** `rows` rows of one group each at x, their codes, and their scales, each so many bytes apart. */
export function quantizeRows(p: QuantizeParams, rows: i32, x: usize, xStride: usize, codes: usize, codesStride: usize, scales: usize, scaleStride: usize): void {
  for (; rows > 0; rows -= ROWS_AT_ONCE) {
    const n = min(rows, ROWS_AT_ONCE);
    if (p.dtype == DTYPE_F32) quantizeFew<F32>(p, n, x, xStride, codes, codesStride, scales, scaleStride);
    else if (p.dtype == DTYPE_F16) quantizeFew<F16>(p, n, x, xStride, codes, codesStride, scales, scaleStride);
    else quantizeFew<BF16>(p, n, x, xStride, codes, codesStride, scales, scaleStride);
    x += <usize>ROWS_AT_ONCE * xStride;
    codes += <usize>ROWS_AT_ONCE * codesStride;
    scales += <usize>ROWS_AT_ONCE * scaleStride;
  }
}

/** A row divided element by element. */
function divideRow<T>(x: usize, n: i32, scales: usize, quotients: usize): void {
  const end = quotients + (<usize>n << 2);
  for (; quotients < end; quotients += 16, scales += 16, x += sizeof<T>() * 4) v128.store(quotients, f32x4.div(load4<T>(x), v128.load(scales)));
}

/** `rows` rows whose dims have a given scale each, at `scales`. What is encoded are the quotients, rounded as any other, times 1. */
export function quantizeChannels(p: QuantizeParams, rows: i32, x: usize, xStride: usize, codes: usize, codesStride: usize, scales: usize): void {
  const quotients = p.operands + (ROWS_AT_ONCE << 2);
  store<f32>(p.operands, 1);
  for (let row = 0; row < rows; row++, x += xStride, codes += codesStride) {
    if (p.dtype == DTYPE_F32) divideRow<F32>(x, p.dim, scales, quotients);
    else if (p.dtype == DTYPE_F16) divideRow<F16>(x, p.dim, scales, quotients);
    else divideRow<BF16>(x, p.dim, scales, quotients);
    const ordinary = <u32>largestWord(quotients, p.dim) < ORDINARY_BITS;
    encodeQuotients<F32, Multiply>(quotients, 0, 1, p.dim, codes, codesStride, p.operands, ordinary, p.format, p.least);
  }
}
