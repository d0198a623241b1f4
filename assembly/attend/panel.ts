/**
 * sums[row][lane] += Σ_i factor[row][i] · panel[i][lane]: what both products of attention are made of. Bounded.
 *
 * scores: factors are a query, i its dims, lanes the tile's keys; values: factors are probabilities, i the keys, lanes dims.
 * Every sum is added up in ascending i, one product at a time, for any number of rows: a row's bits do not depend on what it
 * is computed with. FP8 codes are multiplied as `spread` puts them, without the power of two that it leaves out (the factors
 * carry it), int8 codes as the numbers that they are: the same bits as from a decoded panel, and decoding costs 5 operations per 8 codes.
 *
 * Rows of factors and of sums lie ROW_BYTES apart. 4 rows × 8 lanes: 8 accumulators and what feeds them just fit V8's 15
 * vector registers on x64: unrolled once it spills, and is a third slower.
 */
import * as e4m3fn from "../formats/e4m3fn";
import * as e5m2 from "../formats/e5m2";
import { widenHigh, widenLow } from "../formats/int8";
import { TwoRows } from "../types";
import { zipHigh, zipLow } from "../zip";
import { ROW_BYTES } from "./memory";
import { addProduct } from "./product";

/**
 * `spread`'s mask, which callers pass in: V8 builds a constant, or one computed before the loop, anew in every turn of it.
 * `count` is not negative, but asc cannot know that and put the constant back.
 */
@inline
export function spreadMask<F>(count: i32): v128 {
  return i16x8.splat(<i16>((isSigned<F>() ? e5m2.SPREAD_MASK : e4m3fn.SPREAD_MASK) | (count >> 31)));
}

/** 8 codes, sign-extended to i16, as `high` and `low` take them. */
@inline
function spread<F>(codes: v128, mask: v128): v128 {
  if (sizeof<F>() == 4) return codes;
  return v128.and(i16x8.shl(codes, isSigned<F>() ? e5m2.SPREAD_SHIFT : e4m3fn.SPREAD_SHIFT), mask);
}

@inline
function low<F>(bits: v128, zero: v128): v128 {
  if (sizeof<F>() == 4) return widenLow(bits);
  return zipLow<u16>(zero, bits);
}

@inline
function high<F>(bits: v128, zero: v128): v128 {
  if (sizeof<F>() == 4) return widenHigh(bits);
  return zipHigh<u16>(zero, bits);
}

/**
 * Rows by 8 lanes. F: E4M3FN, E5M2, INT8 or F32; Rows: TwoRows or FourRows.
 * @param n length of the sums
 * @param stride bytes from panel[i] to panel[i + 1]
 * @param fresh sums begin at 0 instead of with what is there
 * @param mask {@link spreadMask}
 */
export function addPanel8<F, Rows>(factors: usize, n: i32, panel: usize, stride: usize, sums: usize, fresh: bool, mask: v128): void {
  const zero = f32x4.splat(0);
  let a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero;
  if (!fresh) {
    a = v128.load(sums);
    b = v128.load(sums, 16);
    c = v128.load(sums, ROW_BYTES);
    d = v128.load(sums, ROW_BYTES + 16);
    if (sizeof<Rows>() == 4) {
      e = v128.load(sums, 2 * ROW_BYTES);
      f = v128.load(sums, 2 * ROW_BYTES + 16);
      g = v128.load(sums, 3 * ROW_BYTES);
      h = v128.load(sums, 3 * ROW_BYTES + 16);
    }
  }
  for (const end = factors + (<usize>n << 2); factors < end; factors += 4, panel += stride) {
    const bits = isFloat<F>() ? zero : spread<F>(v128.load8x8_s(panel), mask);
    const x = isFloat<F>() ? v128.load(panel) : low<F>(bits, zero);
    const y = isFloat<F>() ? v128.load(panel, 16) : high<F>(bits, zero);
    const row0 = v128.load32_splat(factors);
    a = addProduct(a, row0, x);
    b = addProduct(b, row0, y);
    const row1 = v128.load32_splat(factors, ROW_BYTES);
    c = addProduct(c, row1, x);
    d = addProduct(d, row1, y);
    if (sizeof<Rows>() == 4) {
      const row2 = v128.load32_splat(factors, 2 * ROW_BYTES);
      e = addProduct(e, row2, x);
      f = addProduct(f, row2, y);
      const row3 = v128.load32_splat(factors, 3 * ROW_BYTES);
      g = addProduct(g, row3, x);
      h = addProduct(h, row3, y);
    }
  }
  v128.store(sums, a);
  v128.store(sums, b, 16);
  v128.store(sums, c, ROW_BYTES);
  v128.store(sums, d, ROW_BYTES + 16);
  if (sizeof<Rows>() == 4) {
    v128.store(sums, e, 2 * ROW_BYTES);
    v128.store(sums, f, 2 * ROW_BYTES + 16);
    v128.store(sums, g, 3 * ROW_BYTES);
    v128.store(sums, h, 3 * ROW_BYTES + 16);
  }
}

/** Rows by 16 lanes; see {@link addPanel8}. Rows: OneRow or TwoRows. */
export function addPanel16<F, Rows>(factors: usize, n: i32, panel: usize, stride: usize, sums: usize, fresh: bool, mask: v128): void {
  const zero = f32x4.splat(0);
  let a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero;
  if (!fresh) {
    a = v128.load(sums);
    b = v128.load(sums, 16);
    c = v128.load(sums, 32);
    d = v128.load(sums, 48);
    if (sizeof<Rows>() == 2) {
      e = v128.load(sums, ROW_BYTES);
      f = v128.load(sums, ROW_BYTES + 16);
      g = v128.load(sums, ROW_BYTES + 32);
      h = v128.load(sums, ROW_BYTES + 48);
    }
  }
  for (const end = factors + (<usize>n << 2); factors < end; factors += 4, panel += stride) {
    const row0 = v128.load32_splat(factors);
    const row1 = sizeof<Rows>() == 2 ? v128.load32_splat(factors, ROW_BYTES) : zero;
    const first = isFloat<F>() ? zero : spread<F>(v128.load8x8_s(panel), mask);
    const x = isFloat<F>() ? v128.load(panel) : low<F>(first, zero);
    a = addProduct(a, row0, x);
    if (sizeof<Rows>() == 2) e = addProduct(e, row1, x);
    const y = isFloat<F>() ? v128.load(panel, 16) : high<F>(first, zero);
    b = addProduct(b, row0, y);
    if (sizeof<Rows>() == 2) f = addProduct(f, row1, y);
    const second = isFloat<F>() ? zero : spread<F>(v128.load8x8_s(panel, 8), mask);
    const z = isFloat<F>() ? v128.load(panel, 32) : low<F>(second, zero);
    c = addProduct(c, row0, z);
    if (sizeof<Rows>() == 2) g = addProduct(g, row1, z);
    const w = isFloat<F>() ? v128.load(panel, 48) : high<F>(second, zero);
    d = addProduct(d, row0, w);
    if (sizeof<Rows>() == 2) h = addProduct(h, row1, w);
  }
  v128.store(sums, a);
  v128.store(sums, b, 16);
  v128.store(sums, c, 32);
  v128.store(sums, d, 48);
  if (sizeof<Rows>() == 2) {
    v128.store(sums, e, ROW_BYTES);
    v128.store(sums, f, ROW_BYTES + 16);
    v128.store(sums, g, ROW_BYTES + 32);
    v128.store(sums, h, ROW_BYTES + 48);
  }
}

/**
 * Lanes that two rows are multiplied with at a time: 16 for fused products, which wait long for each other; without them,
 * where every product needs a register of its own, 16 spilled and took a quarter longer than 8.
 */
@inline
export const TWO_ROWS_LANES: usize = ASC_FEATURE_RELAXED_SIMD ? 16 : 8;

/** Two rows by TWO_ROWS_LANES. */
@inline
export function addTwoRows<F>(factors: usize, n: i32, panel: usize, stride: usize, sums: usize, fresh: bool, mask: v128): void {
  if (ASC_FEATURE_RELAXED_SIMD) addPanel16<F, TwoRows>(factors, n, panel, stride, sums, fresh, mask);
  else addPanel8<F, TwoRows>(factors, n, panel, stride, sums, fresh, mask);
}
