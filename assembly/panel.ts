/**
 * Rows of codes → their places in a dim-major side of a page, whole elements of 1, 2 or 4 bytes: nothing is computed.
 *
 * rows   (PANEL_TOKENS, dim)   PANEL_ROW_BYTES apart
 * codes  (dim, token)          dims `dimStride` bytes apart
 */
import { zipHigh, zipLow } from "./zip";
import { PANEL_ROW_BYTES } from "../build/params";

@inline
const ROW: usize = PANEL_ROW_BYTES;

function scatter<T>(row: usize, dim: i32, codes: usize, dimStride: usize): void {
  for (const end = row + <usize>dim * sizeof<T>(); row < end; row += sizeof<T>(), codes += dimStride) store<T>(codes, load<T>(row));
}

/** One row, element by element. */
export function scatterRow(row: usize, dim: i32, codes: usize, dimStride: usize, elementBytes: i32): void {
  if (elementBytes == 1) scatter<u8>(row, dim, codes, dimStride);
  else if (elementBytes == 2) scatter<u16>(row, dim, codes, dimStride);
  else scatter<u32>(row, dim, codes, dimStride);
}

/** 8 dims at a time; the registers hold dims × tokens as said. */
function transposeBytes(rows: usize, dim: i32, codes: usize, dimStride: usize): void {
  for (const end = rows + dim; rows < end; rows += 8, codes += 8 * dimStride) {
    // 0…7 × (0, 4), and so on
    const t04 = zipLow<u8>(v128.load64_zero(rows), v128.load64_zero(rows, 4 * ROW));
    const t15 = zipLow<u8>(v128.load64_zero(rows, ROW), v128.load64_zero(rows, 5 * ROW));
    const t26 = zipLow<u8>(v128.load64_zero(rows, 2 * ROW), v128.load64_zero(rows, 6 * ROW));
    const t37 = zipLow<u8>(v128.load64_zero(rows, 3 * ROW), v128.load64_zero(rows, 7 * ROW));
    // 0…3 × (0, 2, 4, 6), and so on
    const low0246 = zipLow<u8>(t04, t26);
    const high0246 = zipHigh<u8>(t04, t26);
    const low1357 = zipLow<u8>(t15, t37);
    const high1357 = zipHigh<u8>(t15, t37);
    const d01 = zipLow<u8>(low0246, low1357);
    const d23 = zipHigh<u8>(low0246, low1357);
    const d45 = zipLow<u8>(high0246, high1357);
    const d67 = zipHigh<u8>(high0246, high1357);
    v128.store64_lane(codes, d01, 0);
    v128.store64_lane(codes + dimStride, d01, 1);
    v128.store64_lane(codes + 2 * dimStride, d23, 0);
    v128.store64_lane(codes + 3 * dimStride, d23, 1);
    v128.store64_lane(codes + 4 * dimStride, d45, 0);
    v128.store64_lane(codes + 5 * dimStride, d45, 1);
    v128.store64_lane(codes + 6 * dimStride, d67, 0);
    v128.store64_lane(codes + 7 * dimStride, d67, 1);
  }
}

/** 8 dims at a time. */
function transposeHalves(rows: usize, dim: i32, codes: usize, dimStride: usize): void {
  for (const end = rows + (<usize>dim << 1); rows < end; rows += 16, codes += 8 * dimStride) {
    const r0 = v128.load(rows);
    const r1 = v128.load(rows, ROW);
    const r2 = v128.load(rows, 2 * ROW);
    const r3 = v128.load(rows, 3 * ROW);
    const r4 = v128.load(rows, 4 * ROW);
    const r5 = v128.load(rows, 5 * ROW);
    const r6 = v128.load(rows, 6 * ROW);
    const r7 = v128.load(rows, 7 * ROW);
    storeFourDims(zipLow<u16>(r0, r4), zipLow<u16>(r1, r5), zipLow<u16>(r2, r6), zipLow<u16>(r3, r7), codes, dimStride);
    storeFourDims(zipHigh<u16>(r0, r4), zipHigh<u16>(r1, r5), zipHigh<u16>(r2, r6), zipHigh<u16>(r3, r7), codes + 4 * dimStride, dimStride);
  }
}

/** 4 dims × 8 halves, of which each register has 4 × 2 tokens. */
@inline
function storeFourDims(t04: v128, t15: v128, t26: v128, t37: v128, codes: usize, dimStride: usize): void {
  const low0246 = zipLow<u16>(t04, t26);
  const high0246 = zipHigh<u16>(t04, t26);
  const low1357 = zipLow<u16>(t15, t37);
  const high1357 = zipHigh<u16>(t15, t37);
  v128.store(codes, zipLow<u16>(low0246, low1357));
  v128.store(codes + dimStride, zipHigh<u16>(low0246, low1357));
  v128.store(codes + 2 * dimStride, zipLow<u16>(high0246, high1357));
  v128.store(codes + 3 * dimStride, zipHigh<u16>(high0246, high1357));
}

/** 4 dims × 4 words. */
@inline
function transposeFourWords(r0: v128, r1: v128, r2: v128, r3: v128, codes: usize, dimStride: usize): void {
  const low02 = zipLow<u32>(r0, r2);
  const high02 = zipHigh<u32>(r0, r2);
  const low13 = zipLow<u32>(r1, r3);
  const high13 = zipHigh<u32>(r1, r3);
  v128.store(codes, zipLow<u32>(low02, low13));
  v128.store(codes + dimStride, zipHigh<u32>(low02, low13));
  v128.store(codes + 2 * dimStride, zipLow<u32>(high02, high13));
  v128.store(codes + 3 * dimStride, zipHigh<u32>(high02, high13));
}

/** 4 dims at a time. */
function transposeWords(rows: usize, dim: i32, codes: usize, dimStride: usize): void {
  for (const end = rows + (<usize>dim << 2); rows < end; rows += 16, codes += 4 * dimStride) {
    transposeFourWords(v128.load(rows), v128.load(rows, ROW), v128.load(rows, 2 * ROW), v128.load(rows, 3 * ROW), codes, dimStride);
    transposeFourWords(v128.load(rows, 4 * ROW), v128.load(rows, 5 * ROW), v128.load(rows, 6 * ROW), v128.load(rows, 7 * ROW), codes + 16, dimStride);
  }
}

/** PANEL_TOKENS rows. */
export function transposePanel(rows: usize, dim: i32, codes: usize, dimStride: usize, elementBytes: i32): void {
  if (elementBytes == 1) transposeBytes(rows, dim, codes, dimStride);
  else if (elementBytes == 2) transposeHalves(rows, dim, codes, dimStride);
  else transposeWords(rows, dim, codes, dimStride);
}
