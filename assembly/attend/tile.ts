/**
 * Keys or values of one tile, gathered from the pages of a sequence and decoded into contiguous f32 rows.
 *
 * tile   (keys) rows of f32, ROW_BYTES apart; only rows from … to − 1 are read and written
 * scales (keys) f32, for granularity token-head
 */
import { decodeRun, widenRun } from "../codec";
import { ROW_BYTES } from "./memory";
import { AttendParams, DTYPE_F16, DTYPE_F32, FORMAT_F16 } from "../../build/params";

/** Consecutive rows of one page. */
function decodeRows(format: i32, source: usize, sourceStride: usize, rows: i32, dim: i32, tile: usize): void {
  for (let row = 0; row < rows; row++) {
    if (format < FORMAT_F16) decodeRun(source, dim, tile, format);
    else widenRun(source, format == FORMAT_F16 ? DTYPE_F16 : DTYPE_F32, dim, tile);
    source += sourceStride;
    tile += ROW_BYTES;
  }
}

/**
 * Rows from … to − 1 of the tile that begins at key `first`.
 * `blocks` is the sequence's row of the block table.
 */
@inline
function gather(
  p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32, tile: usize, scales: usize,
  format: i32, codesAt: usize, headStride: usize, tokenStride: usize, scalesAt: usize, scaleHeadStride: usize,
): void {
  let row = from;
  while (row < to) {
    const key = first + row;
    const block = key / p.blockSize;
    const place = key - block * p.blockSize;
    const rows = min(p.blockSize - place, to - row);
    const page = p.pages + <usize>load<i32>(blocks + (<usize>block << 2)) * p.pageBytes;
    const codes = page + codesAt + <usize>head * headStride + <usize>place * tokenStride;
    decodeRows(format, codes, tokenStride, rows, p.dim, tile + <usize>row * ROW_BYTES);
    if (scalesAt != 0) {
      const source = page + scalesAt + <usize>head * scaleHeadStride + (<usize>place << 2);
      for (let i: usize = 0; i < <usize>rows << 2; i += 4) store<f32>(scales + (<usize>row << 2) + i, load<f32>(source + i));
    }
    row += rows;
  }
}

export function gatherKeys(p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32, tile: usize, scales: usize): void {
  gather(p, blocks, head, first, from, to, tile, scales, p.kFormat, p.kCodes, p.kHeadStride, p.kTokenStride, p.kScales, p.kScaleHeadStride);
}

export function gatherValues(p: AttendParams, blocks: usize, head: i32, first: i32, from: i32, to: i32, tile: usize, scales: usize): void {
  gather(p, blocks, head, first, from, to, tile, scales, p.vFormat, p.vCodes, p.vHeadStride, p.vTokenStride, p.vScales, p.vScaleHeadStride);
}
