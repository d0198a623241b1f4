/**
 * Keys or values of one tile, gathered from the pages of a sequence, and decoded where that pays.
 *
 * K is gathered as (dim, TILE_KEYS), V as (TILE_KEYS, dim), its rows as far apart as in a page, so that lanes are what
 * neighbours in memory are. Lanes and rows of keys that were not asked for hold anything.
 */
import { decodeRun, widenRun } from "../codec";
import { E4M3FN_UNIT_EXPONENT } from "../formats/e4m3fn";
import { E5M2_UNIT_EXPONENT } from "../formats/e5m2";
import { scatterRow } from "../panel";
import { scratch } from "./memory";
import { powerOfTwo } from "./query";
import {
  AttendParams, DTYPE_F16, FORMAT_E4M3FN, FORMAT_E5M2, FORMAT_F16, FORMAT_F32, FORMAT_INT8, SCRATCH_CODES, SCRATCH_GROUP_SCALES, SCRATCH_TILE, SideParams, TILE_KEYS,
} from "../../build/params";

/** By which power of two codes are too small when they are multiplied undecoded; 0: by none, as int8's, f16's and f32's. */
export function codeBias(format: i32): i32 {
  if (format == FORMAT_E4M3FN) return E4M3FN_UNIT_EXPONENT;
  return format == FORMAT_E5M2 ? E5M2_UNIT_EXPONENT : 0;
}

/** Bytes of an element. */
@inline
export function elementBytes(format: i32): usize {
  return format < FORMAT_F16 ? 1 : format == FORMAT_F16 ? 2 : 4;
}

/** Bytes from one row to the next of a side that is not dim-major, where a page has them one after the other: a head's tokens, or, in order NHD, a token's heads. */
@inline
function rowBytes(side: SideParams): i32 {
  return min(side.tokenStride, side.headStride);
}

/** Elements from one row of gathered values to the next. */
@inline
export function valueStride(v: SideParams): i32 {
  return rowBytes(v) / <i32>elementBytes(v.format);
}

/** `bytes` (a multiple of 16) → as many at `target`; four vectors at a time, for V8 unrolls no loop of this size. */
function copyRun(source: usize, bytes: i32, target: usize): void {
  for (; bytes >= 64; bytes -= 64, source += 64, target += 64) {
    const a = v128.load(source);
    const b = v128.load(source, 16);
    const c = v128.load(source, 32);
    const d = v128.load(source, 48);
    v128.store(target, a);
    v128.store(target, b, 16);
    v128.store(target, c, 32);
    v128.store(target, d, 48);
  }
  for (; bytes > 0; bytes -= 16, source += 16, target += 16) v128.store(target, v128.load(source));
}

/** `rows` rows of a multiple of 8 bytes, `sourceStride` and `targetStride` apart. */
function copyRegion(source: usize, sourceStride: usize, rows: i32, bytes: usize, target: usize, targetStride: usize): void {
  for (; rows > 0; rows--, source += sourceStride, target += targetStride) {
    let at: usize = 0;
    for (; at + 16 <= bytes; at += 16) v128.store(target + at, v128.load(source + at));
    if (at < bytes) v128.store64_lane(target + at, v128.load64_zero(source + at), 0);
  }
}

/** Where the codes of a token and head begin. */
@inline
export function codesOf(p: AttendParams, side: SideParams, page: usize, head: i32, place: i32): usize {
  return page + side.codes + <usize>head * side.headStride + <usize>place * side.tokenStride;
}

/** Whether keys lie so that eight of them can be multiplied where they are. */
@inline
export function isDimMajor(k: SideParams): bool {
  return <usize>k.dimStride != elementBytes(k.format);
}

/** Whether each key has one scale in its page. */
@inline
export function hasKeyScales(side: SideParams): bool {
  return side.scales != 0 && side.groupSize == 0;
}

/** Where the given scale of a sequence's head is, or those of its channels. */
@inline
export function givenScales(side: SideParams, sequence: i32, head: i32): usize {
  return side.given + <usize>(sequence * side.givenSequenceStride + head * side.givenHeadStride);
}

/** The entry of the block table that a key belongs to; the next block's follows. */
@inline
export function entryOf(p: AttendParams, blocks: usize, key: i32): usize {
  return blocks + (<usize>(key / p.blockSize) << 2);
}

/** The page that an entry names. */
@inline
export function pageAt(p: AttendParams, entry: usize): usize {
  return p.pages + <usize>load<i32>(entry) * p.pageBytes;
}

/** Keys from … to − 1 of the tile that begins at key `first`; `blocks` is the sequence's row of the block table. */
export function gatherKeys(p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32): void {
  const k = changetype<SideParams>(p.k);
  const bytes = elementBytes(k.format);
  const columns = scratch(p, SCRATCH_CODES);
  const dimMajor = isDimMajor(k);
  // Dim-major pages hold whole eights, and tiles begin at one.
  if (dimMajor) {
    from &= ~7;
    to = (to + 7) & ~7;
  }
  let place = (first + from) % p.blockSize;
  let entry = entryOf(p, blocks, first + from);
  for (let key = from; key < to; place = 0, entry += 4) {
    const run = min(p.blockSize - place, to - key);
    const source = codesOf(p, k, pageAt(p, entry), head, place);
    const column = columns + <usize>key * bytes;
    if (dimMajor) copyRegion(source, k.dimStride, p.dim, <usize>run * bytes, column, <usize>TILE_KEYS * bytes);
    else for (let i = 0; i < run; i++) scatterRow(source + <usize>i * k.tokenStride, p.dim, column + <usize>i * bytes, <usize>TILE_KEYS * bytes, <i32>bytes);
    key += run;
  }
}

/** The same for values. */
export function gatherValues(p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32): void {
  const v = changetype<SideParams>(p.v);
  const bytes = rowBytes(v);
  const codes = scratch(p, SCRATCH_CODES);
  let place = (first + from) % p.blockSize;
  let entry = entryOf(p, blocks, first + from);
  for (let key = from; key < to; place = 0, entry += 4) {
    const run = min(p.blockSize - place, to - key);
    const source = codesOf(p, v, pageAt(p, entry), head, place);
    const target = codes + <usize>(key * bytes);
    // Where a head's rows follow each other in the page, they do as in the tile.
    if (v.tokenStride == bytes) copyRun(source, run * bytes, target);
    else for (let i = 0; i < run; i++) copyRun(source + <usize>(i * v.tokenStride), bytes, target + <usize>(i * bytes));
    key += run;
  }
}

/** The scales of the same keys, of one group of dims. */
export function gatherScales(p: AttendParams, side: SideParams, blocks: usize, head: i32, group: i32, first: i32, from: i32, to: i32, scales: usize): void {
  let place = (first + from) % p.blockSize;
  let entry = entryOf(p, blocks, first + from);
  for (let key = from; key < to; place = 0, entry += 4) {
    const run = min(p.blockSize - place, to - key);
    const source = pageAt(p, entry) + side.scales + <usize>head * side.scaleHeadStride + <usize>group * side.scaleGroupStride + (<usize>place << 2);
    const target = scales + (<usize>key << 2);
    const bytes = <usize>run << 2;
    let at: usize = 0;
    for (; at + 16 <= bytes; at += 16) v128.store(target + at, v128.load(source + at));
    for (; at < bytes; at += 4) store<f32>(target + at, load<f32>(source + at));
    key += run;
  }
}

/** The largest of `bytes` (a multiple of 8) codes without their signs, twice as large, per lane and beside `largest`. */
function largestOf(codes: usize, bytes: usize, largest: v128): v128 {
  let more = largest;
  // Bytes are counted, for 64 behind the end of the last block that memory has is address 0.
  for (; bytes >= 64; bytes -= 64, codes += 64) {
    const a = v128.load(codes);
    const b = v128.load(codes, 16);
    const c = v128.load(codes, 32);
    const d = v128.load(codes, 48);
    largest = i8x16.max_u(largest, i8x16.max_u(i8x16.add(a, a), i8x16.add(b, b)));
    more = i8x16.max_u(more, i8x16.max_u(i8x16.add(c, c), i8x16.add(d, d)));
  }
  for (; bytes > 0; bytes -= 8, codes += 8) {
    const a = v128.load64_zero(codes);
    more = i8x16.max_u(more, i8x16.add(a, a));
  }
  return i8x16.max_u(largest, more);
}

/**
 * Whether codes of these keys may hold one that is no finite number, in any of `heads` heads from `head` on. Whole pages are
 * read from their first byte to their last, which is also what brings a long cache into the processor's own; in order NHD
 * token by token.
 * @param rows `run` codes each: of K the dims, of V none
 */
function anySpecial(p: AttendParams, side: SideParams, rows: i32, blocks: usize, head: i32, heads: i32, first: i32, from: i32, to: i32): bool {
  if (side.format == FORMAT_INT8) return false;
  let largest = i8x16.splat(0);
  let place = (first + from) % p.blockSize;
  let entry = entryOf(p, blocks, first + from);
  for (let key = from; key < to; place = 0, entry += 4) {
    const run = min(p.blockSize - place, to - key);
    const page = pageAt(p, entry);
    if (side.tokenStride >= side.headStride) {
      for (let i = 0; i < run; i++) largest = largestOf(codesOf(p, side, page, head, place + i), <usize>(heads * side.headStride), largest);
    } else if (run == p.blockSize) {
      largest = largestOf(codesOf(p, side, page, head, 0), <usize>(heads * side.headStride), largest);
    } else {
      for (let h = head; h < head + heads; h++) {
        const codes = codesOf(p, side, page, h, place);
        if (rows == 0) largest = largestOf(codes, <usize>(run * side.tokenStride), largest);
        else for (let row = 0; row < rows; row++) largest = largestOf(codes + <usize>(row * side.dimStride), run, largest);
      }
    }
    key += run;
  }
  const limit = i8x16.splat(side.format == FORMAT_E4M3FN ? <i8>(2 * 0x7e) : <i8>(2 * 0x7b));
  return v128.any_true(i8x16.gt_u(largest, limit));
}

/** Whether a dim-major side's FP8 keys may hold one that is no finite number; see {@link anySpecial}. */
export function anySpecialKey(p: AttendParams, blocks: usize, head: i32, heads: i32, first: i32, from: i32, to: i32): bool {
  return anySpecial(p, changetype<SideParams>(p.k), p.dim, blocks, head, heads, first, from & ~7, (to + 7) & ~7);
}

/** The same for values. */
export function anySpecialValue(p: AttendParams, blocks: usize, head: i32, heads: i32, first: i32, from: i32, to: i32): bool {
  return anySpecial(p, changetype<SideParams>(p.v), 0, blocks, head, heads, first, from, to);
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

/** The decoded keys from … to − 1 of the tile, at `tile`, times the scales of their groups. */
export function scaleKeyGroups(p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32, tile: usize): void {
  const k = changetype<SideParams>(p.k);
  const scales = scratch(p, SCRATCH_GROUP_SCALES);
  const begin: usize = (from & ~3) << 2;
  const end = <usize>to << 2;
  for (let d = 0; d < p.dim; d++, tile += TILE_KEYS << 2) {
    if (d % k.groupSize == 0) gatherScales(p, k, blocks, head, d / k.groupSize, first, from, to, scales);
    for (let at = begin; at < end; at += 16) v128.store(tile + at, f32x4.mul(v128.load(tile + at), v128.load(scales + at)));
  }
}

/** The same for values. */
export function scaleValueGroups(p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32, tile: usize): void {
  const v = changetype<SideParams>(p.v);
  const scales = scratch(p, SCRATCH_GROUP_SCALES);
  const rowBytes = <usize>valueStride(v) << 2;
  const bytes = <usize>v.groupSize << 2;
  tile += <usize>from * rowBytes;
  for (let group = 0; group * v.groupSize < p.dim; group++, tile += bytes) {
    gatherScales(p, v, blocks, head, group, first, from, to, scales);
    for (let key = from, row = tile; key < to; key++, row += rowBytes) {
      const scale = v128.load32_splat(scales + (<usize>key << 2));
      for (let at: usize = 0; at < bytes; at += 16) v128.store(row + at, f32x4.mul(v128.load(row + at), scale));
    }
  }
}
