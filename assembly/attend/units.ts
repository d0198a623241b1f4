/**
 * Attention in pieces that threads take: a block of rows of one KV head, over all their keys, or over one cut where there
 * are few blocks and many keys. Layouts in src/layout.ts (UNIT_WORDS, PARTIAL_WORDS).
 *
 * Cuts are computed from nothing and merged in ascending order with the arithmetic of one thread, so that the bits do not
 * depend on who computed what. Which unit is whose turn, and which thread is the last of a split, is kept outside
 * (src/wasm/threads/worker.ts): this module has no atomic instruction, and is the same over shared and unshared memory.
 */
import { attendBlock, attendCut } from "./attend";
import { ROW_BYTES, scratch } from "./memory";
import { finishRow, keepPartial, mergePartial } from "./merge";
import { rowAt, sees, startRows } from "./rows";
import { AttendParams, BLOCK_ROWS, CUT_KEYS, PARTIAL_WORDS, SCRATCH_CUT_SUMS, SCRATCH_ROWS, SCRATCH_SUMS, UNIT_WORDS, WORK_WORDS } from "../../build/params";

/** A unit, or a split. */
@unmanaged
class Unit {
  item: i32;
  kvHead: i32;
  firstRow: i32;
  firstKey: i32;
  cuts: i32;
  partials: usize;
  split: i32;
}

@inline
function unitAt(units: usize, index: i32): Unit {
  return changetype<Unit>(units + <usize>index * (UNIT_WORDS << 2));
}

@inline
function workOf(p: AttendParams, unit: Unit): usize {
  return p.work + <usize>unit.item * (WORK_WORDS << 2);
}

/** Sets up the unit's rows; gives how many. */
function startUnit(p: AttendParams, unit: Unit, rows: usize): i32 {
  const work = workOf(p, unit);
  const n = min(BLOCK_ROWS, load<i32>(work, 4) * (p.queryHeads / p.kvHeads) - unit.firstRow);
  startRows(p, rows, unit.kvHead, load<i32>(work), load<i32>(work, 8), load<i32>(work, 12), unit.firstRow, n);
  return n;
}

/** Computes one unit. Gives the index of the split that it is a piece of, -1 where it is the whole. */
export function attendUnit(p: AttendParams, index: i32): i32 {
  const unit = unitAt(p.units, index);
  const rows = scratch(p, SCRATCH_ROWS);
  const n = startUnit(p, unit, rows);
  const blocks = p.blockTable + <usize>(load<i32>(workOf(p, unit), 16) * p.maxBlocks << 2);
  if (unit.cuts == 0) {
    attendBlock(p, blocks, unit.kvHead, rows, n);
    return -1;
  }
  const end = unit.firstKey + CUT_KEYS;
  const bytes = <usize>p.dim << 2;
  const cutSums = scratch(p, SCRATCH_CUT_SUMS);
  let partial = p.partials + unit.partials;
  attendCut(p, blocks, unit.kvHead, unit.firstKey, end, rows, n);
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    if (sees(row, unit.firstKey, end)) keepPartial(row, cutSums + <usize>r * ROW_BYTES, partial, bytes);
    partial += <usize>(PARTIAL_WORDS << 2) + bytes;
  }
  return unit.split;
}

/** Merges the cuts of a split whose pieces are all computed, and writes the result. */
export function mergeSplit(p: AttendParams, index: i32): void {
  const split = unitAt(p.splits, index);
  const rows = scratch(p, SCRATCH_ROWS);
  const n = startUnit(p, split, rows);
  const bytes = <usize>p.dim << 2;
  const sums = scratch(p, SCRATCH_SUMS);
  let partial = p.partials + split.partials;
  for (let cut = 0; cut < split.cuts; cut++) {
    const first = split.firstKey + cut * CUT_KEYS;
    for (let r = 0; r < n; r++) {
      const row = rowAt(rows, r);
      if (sees(row, first, first + CUT_KEYS)) mergePartial(row, partial, sums + <usize>r * ROW_BYTES, bytes);
      partial += <usize>(PARTIAL_WORDS << 2) + bytes;
    }
  }
  for (let r = 0; r < n; r++) finishRow(p, rowAt(rows, r), sums + <usize>r * ROW_BYTES);
}
