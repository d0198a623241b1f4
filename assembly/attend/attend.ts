/**
 * Attention of query rows over paged keys and values. Bounded: products and sums in f32.
 *
 * out[row] = softmax(softmaxScale · q[row] · Kᵀ, masked) · V; layouts in src/layout.ts (attendParams).
 *
 * For each KV head, up to BLOCK_ROWS rows (query rows × heads of the group) share one pass over the keys they see: a tile
 * of TILE_KEYS keys is gathered once, then multiplied with all rows' queries; then its values with their probabilities. Few
 * rows multiply FP8 codes as they are, decoding in registers; for many the tile is decoded first. The bits are the same.
 *
 * Order: tiles and cuts begin at fixed keys (multiples of TILE_KEYS and CUT_KEYS), so what a row adds up, and in which
 * order, depends on the row alone: not on its block, batch, chunk or pages.
 */
import { E4M3FN, E5M2, F32 } from "../types";
import { finishRow, mergeCut } from "./merge";
import { ROW_BYTES, scratch } from "./memory";
import { addPanel1, addPanel2, addPanel4, spreadMask } from "./panel";
import { scaleQueries } from "./query";
import { rowAt, sees, startRows } from "./rows";
import { scalesAreSafe, softmaxRow } from "./softmax";
import { codeBias, decodeTile, elementBytes, gatherKeys, gatherValues, valueStride } from "./tile";
import {
  AttendParams, BLOCK_ROWS, CUT_KEYS, FORMAT_E4M3FN, FORMAT_F32, SCRATCH_CODES, SCRATCH_CUT_SUMS, SCRATCH_K_SCALES, SCRATCH_QUERIES, SCRATCH_ROWS,
  SCRATCH_SCORES, SCRATCH_SUMS, SCRATCH_V_SCALES, SideParams, TILE_KEYS, WORK_WORDS,
} from "../../build/params";

/** From this many rows on, decoding a tile once is faster than decoding it for every four rows. */
const MANY_ROWS = 12;
/** FP8 values of decoded tiles are left 2^60 too small: far from where factors or products overflow or are denormal. */
const TILE_BIAS = 60;

/** What the other factor of products with a format is scaled by, see query.ts. */
@inline
function biasOf(format: i32, rows: i32): i32 {
  return rows < MANY_ROWS ? codeBias(format) : min(TILE_BIAS, codeBias(format));
}

/** Whether that is what undecoded codes need. */
@inline
function multipliesCodes(format: i32, bias: i32): bool {
  return bias != 0 && bias == codeBias(format);
}

/** Rows that are multiplied together: fours, and what remains. Three are filled up. */
@inline
function rowsTogether(left: i32): i32 {
  return left > 2 ? min(4, left) : left;
}

/** Scores of 1 … 4 rows against `lanes` keys. */
function scorePanels<F>(count: i32, queries: usize, dim: i32, tile: usize, lanes: i32, scores: usize): void {
  const bytes: usize = isFloat<F>() ? 4 : 1;
  const stride = <usize>TILE_KEYS * bytes;
  const end = scores + (<usize>lanes << 2);
  const mask = spreadMask<F>(count);
  if (count > 2) for (; scores < end; scores += 32, tile += 8 * bytes) addPanel4<F>(queries, dim, tile, stride, scores, true, mask);
  else if (count == 2) for (; scores < end; scores += 64, tile += 16 * bytes) addPanel2<F>(queries, dim, tile, stride, scores, true, mask);
  else for (; scores < end; scores += 64, tile += 16 * bytes) addPanel1<F>(queries, dim, tile, stride, scores, true, mask);
}

/** The products of 1 … 4 rows of probabilities with `keys` values of `dim` elements, added to their sums. */
function addValues<F>(count: i32, probabilities: usize, keys: i32, tile: usize, elements: i32, dim: i32, sums: usize): void {
  const bytes: usize = isFloat<F>() ? 4 : 1;
  const stride = <usize>elements * bytes;
  const end = sums + (<usize>dim << 2);
  const mask = spreadMask<F>(count);
  if (count > 2) for (; sums < end; sums += 32, tile += 8 * bytes) addPanel4<F>(probabilities, keys, tile, stride, sums, false, mask);
  else if (count == 2) for (; sums < end; sums += 64, tile += 16 * bytes) addPanel2<F>(probabilities, keys, tile, stride, sums, false, mask);
  else for (; sums < end; sums += 64, tile += 16 * bytes) addPanel1<F>(probabilities, keys, tile, stride, sums, false, mask);
}

/** Scores of all rows against the keys of the tile that any row beside them sees. */
function scoreRows(p: AttendParams, rows: usize, n: i32, tile: usize, format: i32): void {
  const queries = scratch(p, SCRATCH_QUERIES);
  const scores = scratch(p, SCRATCH_SCORES);
  for (let r = 0; r < n; ) {
    const count = rowsTogether(n - r);
    let from = TILE_KEYS;
    let to = 0;
    for (let i = r; i < r + count; i++) {
      const row = rowAt(rows, i);
      if (row.from >= row.to) continue;
      from = min(from, row.from);
      to = max(to, row.to);
    }
    const at = <usize>r * ROW_BYTES;
    if (from < to) {
      from &= ~15;
      const panel = tile + <usize>from * elementBytes(format);
      const rowScores = scores + at + (<usize>from << 2);
      if (format == FORMAT_F32) scorePanels<F32>(count, queries + at, p.dim, panel, to - from, rowScores);
      else if (format == FORMAT_E4M3FN) scorePanels<E4M3FN>(count, queries + at, p.dim, panel, to - from, rowScores);
      else scorePanels<E5M2>(count, queries + at, p.dim, panel, to - from, rowScores);
    }
    r += count;
  }
}

/** Keys from … to − 1 of the tile added to `count` rows of sums, from row r on. */
@inline
function addKeys(p: AttendParams, r: i32, count: i32, from: i32, to: i32, tile: usize, format: i32, stride: i32): void {
  if (from >= to) return;
  const at = <usize>r * ROW_BYTES;
  const probabilities = scratch(p, SCRATCH_SCORES) + at + (<usize>from << 2);
  const values = tile + <usize>(from * stride) * elementBytes(format);
  const sums = scratch(p, SCRATCH_CUT_SUMS) + at;
  if (format == FORMAT_F32) addValues<F32>(count, probabilities, to - from, values, stride, p.dim, sums);
  else if (format == FORMAT_E4M3FN) addValues<E4M3FN>(count, probabilities, to - from, values, stride, p.dim, sums);
  else addValues<E5M2>(count, probabilities, to - from, values, stride, p.dim, sums);
}

/** A row's sums times a power of two, or whatever it is. */
function scaleSums(p: AttendParams, r: i32, by: f32): void {
  if (by == 1) return;
  const factor = f32x4.splat(by);
  const sums = scratch(p, SCRATCH_CUT_SUMS) + <usize>r * ROW_BYTES;
  for (let at: usize = 0; at < <usize>p.dim << 2; at += 16) v128.store(sums + at, f32x4.mul(v128.load(sums + at), factor));
}

/**
 * Probabilities times values. A row's sums take in only keys that it sees: a slot that it does not see may hold NaN, and
 * 0 · NaN would reach them. What rows beside each other all see is multiplied together, the rest for each alone.
 */
function addRows(p: AttendParams, rows: usize, n: i32, tile: usize, format: i32, stride: i32): void {
  for (let r = 0; r < n; ) {
    const count = rowsTogether(n - r);
    let from = 0;
    let to = TILE_KEYS;
    for (let i = r; i < r + count; i++) {
      const row = rowAt(rows, i);
      from = max(from, row.from);
      to = min(to, row.to);
      if (row.from < row.to) scaleSums(p, i, row.rescale);
    }
    if (from >= to) from = to = TILE_KEYS;
    for (let i = r; i < r + count; i++) {
      const row = rowAt(rows, i);
      addKeys(p, i, 1, row.from, min(row.to, from), tile, format, stride);
    }
    addKeys(p, r, count, from, to, tile, format, stride);
    for (let i = r; i < r + count; i++) {
      const row = rowAt(rows, i);
      addKeys(p, i, 1, max(row.from, to), row.to, tile, format, stride);
      if (row.from < row.to) scaleSums(p, i, row.restore);
    }
    r += count;
  }
}

/** One tile for all rows of the block. `kBias`, `vBias`: what queries and probabilities are scaled by. */
function attendTile(p: AttendParams, blocks: usize, kvHead: i32, first: i32, rows: usize, n: i32, kBias: i32, vBias: i32): void {
  let from = TILE_KEYS;
  let to = 0;
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    row.from = max(0, row.first - first);
    row.to = min(TILE_KEYS, row.end - first);
    if (row.from < row.to) {
      from = min(from, row.from);
      to = max(to, row.to);
    }
  }
  if (from >= to) return;
  const k = changetype<SideParams>(p.k);
  const v = changetype<SideParams>(p.v);
  const codes = scratch(p, SCRATCH_CODES);
  const kSpecial = gatherKeys(p, blocks, kvHead, first, from, to);
  if (multipliesCodes(k.format, kBias) && !kSpecial) scoreRows(p, rows, n, codes, k.format);
  else scoreRows(p, rows, n, decodeTile(p, k.format, 0, p.dim * TILE_KEYS, kBias), FORMAT_F32);
  const vSpecial = gatherValues(p, blocks, kvHead, first, from, to);
  const scores = scratch(p, SCRATCH_SCORES);
  const kScales = scratch(p, SCRATCH_K_SCALES);
  const vScales = scratch(p, SCRATCH_V_SCALES);
  const safe = scalesAreSafe(vScales, from, to);
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    if (row.from < row.to) softmaxRow(p, row, scores + <usize>r * ROW_BYTES, kScales, vScales, vBias, safe);
  }
  const stride = valueStride(v);
  if (multipliesCodes(v.format, vBias) && !vSpecial) addRows(p, rows, n, codes, v.format, stride);
  else addRows(p, rows, n, decodeTile(p, v.format, from * stride, (to - from) * stride, vBias), FORMAT_F32, stride);
}

function startCut(rows: usize, n: i32, cutSums: usize): void {
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    row.cutMax = -<f32>Infinity;
    row.cutSum = 0;
  }
  memory.fill(cutSums, 0, <usize>((n + 3) & ~3) * ROW_BYTES);
}

function fillWithOnes(scales: usize): void {
  for (let key: usize = 0; key < <usize>TILE_KEYS << 2; key += 4) store<f32>(scales + key, 1);
}

/** Rows over keys first … end − 1, which begin with a tile and lie in one cut: what they give is left in cutSums. */
export function attendCut(p: AttendParams, blocks: usize, kvHead: i32, first: i32, end: i32, rows: usize, n: i32): void {
  const k = changetype<SideParams>(p.k);
  const v = changetype<SideParams>(p.v);
  const kBias = biasOf(k.format, n);
  const vBias = biasOf(v.format, n);
  scaleQueries(p, rows, n, kBias, k.scale);
  if (k.scales == 0) fillWithOnes(scratch(p, SCRATCH_K_SCALES));
  if (v.scales == 0) fillWithOnes(scratch(p, SCRATCH_V_SCALES));
  startCut(rows, n, scratch(p, SCRATCH_CUT_SUMS));
  for (let tile = first; tile < end; tile += TILE_KEYS) attendTile(p, blocks, kvHead, tile, rows, n, kBias, vBias);
}

/** Up to BLOCK_ROWS rows of one KV head, from first key to result. */
export function attendBlock(p: AttendParams, blocks: usize, kvHead: i32, rows: usize, n: i32): void {
  const cutSums = scratch(p, SCRATCH_CUT_SUMS);
  const sums = scratch(p, SCRATCH_SUMS);
  let first = i32.MAX_VALUE;
  let end = 0;
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    if (row.first >= row.end) continue;
    first = min(first, row.first);
    end = max(end, row.end);
  }
  for (let cut = first - first % CUT_KEYS; cut < end; cut += CUT_KEYS) {
    const cutEnd = min(end, cut + CUT_KEYS);
    attendCut(p, blocks, kvHead, max(cut, first - first % TILE_KEYS), cutEnd, rows, n);
    for (let r = 0; r < n; r++) {
      const row = rowAt(rows, r);
      if (sees(row, cut, cutEnd)) mergeCut(row, cutSums + <usize>r * ROW_BYTES, sums + <usize>r * ROW_BYTES, <usize>p.dim << 2);
    }
  }
  for (let r = 0; r < n; r++) finishRow(p, rowAt(rows, r), sums + <usize>r * ROW_BYTES);
}

/** All work items, on one thread. */
export function attend(p: AttendParams): void {
  const rows = scratch(p, SCRATCH_ROWS);
  const group = p.queryHeads / p.kvHeads;
  for (let item = 0; item < p.items; item++) {
    const work = p.work + <usize>item * (WORK_WORDS << 2);
    const count = load<i32>(work, 4) * group;
    const blocks = p.blockTable + <usize>(load<i32>(work, 16) * p.maxBlocks << 2);
    for (let kvHead = 0; kvHead < p.kvHeads; kvHead++) {
      for (let r0 = 0; r0 < count; r0 += BLOCK_ROWS) {
        const n = min(BLOCK_ROWS, count - r0);
        startRows(p, rows, kvHead, load<i32>(work), load<i32>(work, 8), load<i32>(work, 12), r0, n);
        attendBlock(p, blocks, kvHead, rows, n);
      }
    }
  }
}
