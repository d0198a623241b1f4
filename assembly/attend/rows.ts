/** Query rows, and the blocks in which they are computed. ROW_WORDS and BLOCK_WORDS of src/layout.ts are their sizes. */
import { ROW_BYTES, scratch } from "./memory";
import { AttendParams, BLOCK_ROWS, ROW_WORDS, SCRATCH_ROWS, WORK_WORDS } from "../../build/params";

/** What a query row carries through its tiles and cuts. */
@unmanaged
export class Row {
  /** Its query: (dim) f32. */
  q: usize;
  /** Query head. */
  head: i32;
  /** Where it stands among the keys. */
  position: i32;
  /** Its head's ALiBi slope; 0 without. */
  slope: f32;
  /** Keys it sees: first … end − 1. Empty when first ≥ end. */
  first: i32;
  end: i32;
  /** The part of them in the current tile, counted from its first key. */
  from: i32;
  to: i32;
  /** What its scores are multiplied with, beside the keys' scales: see query.ts. */
  factor: f32;
  /** Largest score and sum of exp(score − largest): in this cut, then over all cuts so far. */
  cutMax: f32;
  cutSum: f32;
  max: f32;
  sum: f32;
  /** What the cut's sums must be multiplied with before the current tile is added, and then after it: see softmax.ts. */
  rescale: f32;
  restore: f32;
  /** 1 once a cut has been merged. */
  merged: i32;
}

@inline
export function rowAt(rows: usize, index: i32): Row {
  return changetype<Row>(rows + <usize>index * (ROW_WORDS << 2));
}

/** Whether the row sees one of the keys from … to − 1. */
@inline
export function sees(row: Row, from: i32, to: i32): bool {
  return max(row.first, from) < min(row.end, to);
}

/**
 * Rows that are computed together: up to BLOCK_ROWS rows (query row × head of the group) of one KV head, or few rows of each
 * of several KV heads that follow each other. Every head's rows begin at a multiple of 4, so that they fill up its last four.
 */
@unmanaged
export class Block {
  kvHead: i32;
  heads: i32;
  /** Rows of each head. */
  n: i32;
  sequence: i32;
  /** The sequence's row of the block table. */
  blocks: usize;
  /** Keys that any row sees: first … end − 1, none between them unseen. Heads do not differ in this. */
  first: i32;
  end: i32;
}

/** Places that n rows of one head take. */
@inline
export function rowsPerHead(n: i32): i32 {
  return (n + 3) & ~3;
}

/** The rows of one of the block's heads. */
@inline
export function rowsOf(p: AttendParams, block: Block, head: i32): usize {
  return scratch(p, SCRATCH_ROWS) + <usize>(head * rowsPerHead(block.n)) * (ROW_WORDS << 2);
}

/** Where the block's i-th row stands among all places. */
@inline
function placeOf(block: Block, i: i32): i32 {
  const head = i / block.n;
  return head * rowsPerHead(block.n) + i - head * block.n;
}

@inline
export function rowOf(p: AttendParams, block: Block, i: i32): Row {
  return rowAt(scratch(p, SCRATCH_ROWS), placeOf(block, i));
}

/** The sums of the block's i-th row, in this part of the working memory. */
@inline
export function sumsOf(p: AttendParams, part: i32, block: Block, i: i32): usize {
  return scratch(p, part) + <usize>placeOf(block, i) * ROW_BYTES;
}

/** Sets up a row, and which keys it sees: the i-th (query row × head of the group) of an item. */
function startRow(p: AttendParams, row: Row, work: usize, kvHead: i32, i: i32): void {
  const group = p.queryHeads / p.kvHeads;
  const queryRow = i / group;
  const at = load<i32>(work, 8) + queryRow;
  row.head = kvHead * group + i % group;
  row.position = at;
  row.slope = p.alibiSlopes != 0 ? load<f32>(p.alibiSlopes + (<usize>row.head << 2)) : 0;
  row.q = p.q + <usize>((load<i32>(work) + queryRow) * p.queryHeads + row.head) * (<usize>p.dim << 2);
  // In 64 bits: a window may be as wide as 2³¹ − 1, and `at` negative.
  row.first = p.windowLeft < 0 ? 0 : <i32>max<i64>(0, <i64>at - p.windowLeft);
  let end = load<i32>(work, 12);
  if (p.causal) end = min(end, at + 1);
  if (p.windowRight >= 0) end = <i32>min<i64>(end, <i64>at + p.windowRight + 1);
  row.end = end;
  row.merged = 0;
  row.max = -<f32>Infinity;
  row.sum = 0;
}

/** Sets up the rows of an item from `firstRow` on, as many as a block holds, for each of `heads` KV heads. */
export function startBlock(p: AttendParams, block: Block, item: i32, kvHead: i32, heads: i32, firstRow: i32): void {
  const work = p.work + <usize>item * (WORK_WORDS << 2);
  block.kvHead = kvHead;
  block.heads = heads;
  block.n = min(BLOCK_ROWS, load<i32>(work, 4) * (p.queryHeads / p.kvHeads) - firstRow);
  block.sequence = load<i32>(work, 16);
  block.blocks = p.blockTable + <usize>(block.sequence * p.maxBlocks << 2);
  block.first = i32.MAX_VALUE;
  block.end = 0;
  for (let i = 0; i < heads * block.n; i++) {
    const row = rowOf(p, block, i);
    startRow(p, row, work, kvHead + i / block.n, firstRow + i % block.n);
    if (row.first >= row.end) continue;
    block.first = min(block.first, row.first);
    block.end = max(block.end, row.end);
  }
}
