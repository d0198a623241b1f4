/**
 * Attention of query rows over paged keys and values. Bounded: products and sums in f32.
 *
 * out[row] = softmax(softmaxScale · q[row] · Kᵀ, masked) · V; layouts in src/layout.ts (attendParams).
 *
 * For each KV head, up to BLOCK_ROWS rows (query rows × heads of the group) share one pass over the keys they see: a tile
 * of TILE_KEYS keys is decoded once, then scored against all rows; then its values are decoded into the same memory.
 *
 * Order: tiles and cuts begin at fixed keys (multiples of TILE_KEYS and CUT_KEYS), so what a row adds up, and in which
 * order, depends on the row alone: not on its block, batch, chunk or pages.
 */
import { finishRow, mergeCut } from "./merge";
import { Row, rowAt, startRows } from "./rows";
import { scoreRow, scoreTwoRows } from "./score";
import { softmaxRow } from "./softmax";
import { gatherKeys, gatherValues } from "./tile";
import { addValues, addValuesTwoRows } from "./value";
import { ROW_BYTES, SCORE_BYTES, scratch } from "./memory";
import {
  AttendParams, BLOCK_ROWS, CUT_KEYS, SCRATCH_CUT_SUMS, SCRATCH_K_SCALES, SCRATCH_ROWS, SCRATCH_SCORES, SCRATCH_SUMS, SCRATCH_TILE, SCRATCH_V_SCALES,
  TILE_KEYS, WORK_WORDS,
} from "../../build/params";

/** Scores of all rows against the tile's keys, two rows at a time where both see some. */
function scoreRows(p: AttendParams, rows: usize, n: i32, tile: usize, scores: usize): void {
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    if (row.from >= row.to) continue;
    const at = scores + <usize>r * SCORE_BYTES;
    const next = rowAt(rows, r + 1);
    if (r + 1 < n && next.from < next.to) {
      const from = min(row.from, next.from) & ~3;
      scoreTwoRows(row.q, next.q - row.q, p.dim, tile, from, (max(row.to, next.to) + 3) & ~3, at);
      r++;
    } else {
      scoreRow(row.q, p.dim, tile, row.from & ~3, (row.to + 3) & ~3, at);
    }
  }
}

/** Probabilities times values, two rows at a time where both see the same keys. */
function addRows(rows: usize, n: i32, dims: i32, tile: usize, scores: usize, sums: usize): void {
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    if (row.from >= row.to) continue;
    const at = scores + <usize>r * SCORE_BYTES;
    const next = rowAt(rows, r + 1);
    if (r + 1 < n && next.from == row.from && next.to == row.to) {
      addValuesTwoRows(at, row.from, row.to, tile, dims, row.rescale, next.rescale, sums + <usize>r * ROW_BYTES);
      r++;
    } else {
      addValues(at, row.from, row.to, tile, dims, row.rescale, sums + <usize>r * ROW_BYTES);
    }
  }
}

/** One tile for all rows of the block. */
function attendTile(p: AttendParams, blocks: usize, kvHead: i32, first: i32, rows: usize, n: i32): void {
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
  const tile = scratch(p, SCRATCH_TILE);
  const scores = scratch(p, SCRATCH_SCORES);
  const kScales = scratch(p, SCRATCH_K_SCALES);
  const vScales = scratch(p, SCRATCH_V_SCALES);
  gatherKeys(p, blocks, kvHead, first, from, to, tile, kScales);
  scoreRows(p, rows, n, tile, scores);
  gatherValues(p, blocks, kvHead, first, from, to, tile, vScales);
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    if (row.from < row.to) softmaxRow(p, row, scores + <usize>r * SCORE_BYTES, kScales, vScales);
  }
  addRows(rows, n, (p.dim + 15) & ~15, tile, scores, scratch(p, SCRATCH_CUT_SUMS));
}

function startCut(rows: usize, n: i32, cutSums: usize): void {
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    row.cutMax = -<f32>Infinity;
    row.cutSum = 0;
  }
  memory.fill(cutSums, 0, <usize>n * ROW_BYTES);
}

/** Up to BLOCK_ROWS rows of one KV head, from first key to result. */
function attendBlock(p: AttendParams, blocks: usize, kvHead: i32, rows: usize, n: i32): void {
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
    startCut(rows, n, cutSums);
    for (let tile = max(cut, first - first % TILE_KEYS); tile < cutEnd; tile += TILE_KEYS) {
      attendTile(p, blocks, kvHead, tile, rows, n);
    }
    for (let r = 0; r < n; r++) {
      const row = rowAt(rows, r);
      if (max(row.first, cut) < min(row.end, cutEnd)) mergeCut(row, cutSums + <usize>r * ROW_BYTES, sums + <usize>r * ROW_BYTES, <usize>p.dim << 2);
    }
  }
  for (let r = 0; r < n; r++) finishRow(p, rowAt(rows, r), sums + <usize>r * ROW_BYTES);
}

/** All work items. */
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
