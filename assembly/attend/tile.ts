/**
 * Keys or values of one tile, gathered from the pages of a sequence, and decoded where that pays.
 *
 * K is gathered as (dim, TILE_KEYS), V as (TILE_KEYS, dim), its rows as far apart as in a page, so that lanes are what neighbours in memory are.
 * Lanes and rows of keys that were not asked for hold anything.
 */
import { decodeRun, widenRun } from "../codec";
import { E4M3FN_UNIT_EXPONENT } from "../formats/e4m3fn";
import { E5M2_UNIT_EXPONENT } from "../formats/e5m2";
import { scratch } from "./memory";
import { powerOfTwo } from "./query";
import {
  AttendParams, DTYPE_F16, FORMAT_E4M3FN, FORMAT_E5M2, FORMAT_F16, FORMAT_F32, SCRATCH_CODES, SCRATCH_K_SCALES, SCRATCH_TILE, SCRATCH_V_SCALES,
  SideParams, TILE_KEYS,
} from "../../build/params";

/** By which power of two codes are too small when they are multiplied undecoded; 0: the format is not FP8. */
export function codeBias(format: i32): i32 {
  if (format == FORMAT_E4M3FN) return E4M3FN_UNIT_EXPONENT;
  return format == FORMAT_E5M2 ? E5M2_UNIT_EXPONENT : 0;
}

/** Bytes of an element. */
@inline
export function elementBytes(format: i32): usize {
  return format < FORMAT_F16 ? 1 : format == FORMAT_F16 ? 2 : 4;
}

/** Elements from one row of gathered values to the next. */
@inline
export function valueStride(v: SideParams): i32 {
  return v.tokenStride / <i32>elementBytes(v.format);
}

/**
 * `bytes` (a multiple of 16) → as many at `target`; four at a time, for V8 unrolls no loop of this size.
 * @returns the largest magnitudes (sign bits off) per byte, beside those of `largest`
 */
function copyRun(source: usize, bytes: i32, target: usize, largest: v128): v128 {
  const positive = i8x16.splat(0x7f);
  let more = largest;
  let x = largest;
  for (; bytes >= 64; bytes -= 64, source += 64, target += 64) {
    const a = v128.load(source);
    const b = v128.load(source, 16);
    const c = v128.load(source, 32);
    const d = v128.load(source, 48);
    v128.store(target, a);
    v128.store(target, b, 16);
    v128.store(target, c, 32);
    v128.store(target, d, 48);
    x = i8x16.max_u(x, i8x16.max_u(v128.and(a, positive), v128.and(b, positive)));
    more = i8x16.max_u(more, i8x16.max_u(v128.and(c, positive), v128.and(d, positive)));
  }
  for (; bytes > 0; bytes -= 16, source += 16, target += 16) {
    const a = v128.load(source);
    v128.store(target, a);
    x = i8x16.max_u(x, v128.and(a, positive));
  }
  return i8x16.max_u(x, more);
}

/** `rows` (a multiple of 4) runs of 16 bytes; see {@link copyRun}. */
function copyColumns16(source: usize, sourceStride: usize, rows: i32, target: usize, targetStride: usize, largest: v128): v128 {
  const positive = i8x16.splat(0x7f);
  let more = largest;
  for (; rows > 0; rows -= 4) {
    const a = v128.load(source);
    source += sourceStride;
    const b = v128.load(source);
    source += sourceStride;
    const c = v128.load(source);
    source += sourceStride;
    const d = v128.load(source);
    source += sourceStride;
    v128.store(target, a);
    target += targetStride;
    v128.store(target, b);
    target += targetStride;
    v128.store(target, c);
    target += targetStride;
    v128.store(target, d);
    target += targetStride;
    largest = i8x16.max_u(largest, i8x16.max_u(v128.and(a, positive), v128.and(b, positive)));
    more = i8x16.max_u(more, i8x16.max_u(v128.and(c, positive), v128.and(d, positive)));
  }
  return i8x16.max_u(largest, more);
}

/** `rows` runs of 8 bytes. */
function copyColumns8(source: usize, sourceStride: usize, rows: i32, target: usize, targetStride: usize, largest: v128): v128 {
  for (; rows > 0; rows--, source += sourceStride, target += targetStride) {
    const codes = v128.load64_zero(source);
    v128.store64_lane(target, codes, 0);
    largest = i8x16.max_u(largest, v128.and(codes, i8x16.splat(0x7f)));
  }
  return largest;
}

/** Rows of any multiple of 8 bytes. */
function copyRegion(source: usize, sourceStride: usize, rows: i32, bytes: usize, target: usize, targetStride: usize, largest: v128): v128 {
  for (; bytes >= 16; bytes -= 16, source += 16, target += 16) largest = copyColumns16(source, sourceStride, rows, target, targetStride, largest);
  return bytes > 0 ? copyColumns8(source, sourceStride, rows, target, targetStride, largest) : largest;
}

/** One token's key, as it lies in a token-major page, as a column. */
function scatterKey(source: usize, bytes: usize, dim: i32, column: usize): void {
  for (; dim > 0; dim--, source += bytes, column += <usize>TILE_KEYS * bytes) {
    if (bytes == 1) store<u8>(column, load<u8>(source));
    else if (bytes == 2) store<u16>(column, load<u16>(source));
    else store<u32>(column, load<u32>(source));
  }
}

/** Where the codes of a token and head begin. */
@inline
function codesOf(p: AttendParams, side: SideParams, page: usize, head: i32, place: i32): usize {
  return page + side.codes + <usize>head * side.headStride + <usize>place * side.tokenStride;
}

/** `n` scales of one page. */
@inline
function copyScales(side: SideParams, page: usize, head: i32, place: i32, n: i32, scales: usize): void {
  const source = page + side.scales + <usize>head * side.scaleHeadStride + (<usize>place << 2);
  for (let i: usize = 0; i < <usize>n << 2; i += 4) store<f32>(scales + i, load<f32>(source + i));
}

/** Whether FP8 codes of these magnitudes hold one that is no finite number. */
function anySpecial(format: i32, largest: v128): bool {
  if (format == FORMAT_E4M3FN) return v128.any_true(i8x16.eq(largest, i8x16.splat(0x7f)));
  return format == FORMAT_E5M2 && v128.any_true(i8x16.gt_u(largest, i8x16.splat(0x7b)));
}

/**
 * Keys from … to − 1 of the tile that begins at key `first`; `blocks` is the sequence's row of the block table.
 * @returns whether there may be codes among them that are no finite number
 */
export function gatherKeys(p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32): bool {
  const k = changetype<SideParams>(p.k);
  const bytes = elementBytes(k.format);
  const columns = scratch(p, SCRATCH_CODES);
  const scales = scratch(p, SCRATCH_K_SCALES);
  const tokenMajor = <usize>k.dimStride == bytes;
  let largest = i8x16.splat(0);
  // Dim-major pages hold whole eights, and tiles begin at one.
  for (let key = tokenMajor ? from : from & ~7, end = tokenMajor ? to : (to + 7) & ~7; key < end; ) {
    const block = (first + key) / p.blockSize;
    const place = first + key - block * p.blockSize;
    const run = min(p.blockSize - place, end - key);
    const page = p.pages + <usize>load<i32>(blocks + (<usize>block << 2)) * p.pageBytes;
    const source = codesOf(p, k, page, head, place);
    const column = columns + <usize>key * bytes;
    if (tokenMajor) {
      for (let i = 0; i < run; i++) scatterKey(source + <usize>i * k.tokenStride, bytes, p.dim, column + <usize>i * bytes);
    } else {
      largest = copyRegion(source, k.dimStride, p.dim, <usize>run * bytes, column, <usize>TILE_KEYS * bytes, largest);
    }
    if (k.scales != 0) copyScales(k, page, head, place, run, scales + (<usize>key << 2));
    key += run;
  }
  return tokenMajor ? k.format < FORMAT_F16 : anySpecial(k.format, largest);
}

/** The same for values. */
export function gatherValues(p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32): bool {
  const v = changetype<SideParams>(p.v);
  const codes = scratch(p, SCRATCH_CODES);
  const scales = scratch(p, SCRATCH_V_SCALES);
  let largest = i8x16.splat(0);
  for (let key = from; key < to; ) {
    const block = (first + key) / p.blockSize;
    const place = first + key - block * p.blockSize;
    const run = min(p.blockSize - place, to - key);
    const page = p.pages + <usize>load<i32>(blocks + (<usize>block << 2)) * p.pageBytes;
    // A page's rows follow each other, as the tile's do.
    largest = copyRun(codesOf(p, v, page, head, place), run * v.tokenStride, codes + <usize>key * v.tokenStride, largest);
    if (v.scales != 0) copyScales(v, page, head, place, run, scales + (<usize>key << 2));
    key += run;
  }
  return anySpecial(v.format, largest);
}

/**
 * n gathered elements (a multiple of 16) as f32.
 * @param bias FP8: the values are left 2^bias too small, as {@link decodeRun} explains
 * @returns where they are
 */
export function decodeTile(p: AttendParams, format: i32, first: i32, n: i32, bias: i32): usize {
  const codes = scratch(p, SCRATCH_CODES);
  if (format == FORMAT_F32) return codes;
  const tile = scratch(p, SCRATCH_TILE);
  const source = codes + <usize>first * elementBytes(format);
  const target = tile + (<usize>first << 2);
  if (format == FORMAT_F16) widenRun(source, DTYPE_F16, n, target);
  else decodeRun(source, n, target, format, powerOfTwo(-bias));
  return tile;
}
