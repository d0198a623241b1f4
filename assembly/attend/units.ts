/**
 * Attention in pieces that threads take: a block of rows, over all their keys, or over one cut where there are few
 * blocks and many keys. Layouts in src/layout.ts (UNIT_WORDS, PARTIAL_WORDS).
 *
 * Cuts are computed from nothing and merged in ascending order with the arithmetic of one thread, so that the bits do not
 * depend on who computed what. Which unit is whose turn, and which thread is the last of a split, is kept outside
 * (src/wasm/threads/worker.ts): this module has no atomic instruction, and is the same over shared and unshared memory.
 */
import { attendBlock, attendCut } from "./attend";
import { scratch } from "./memory";
import { finishRow, keepPartial, mergePartial } from "./merge";
import { Block, rowOf, sees, startBlock, sumsOf } from "./rows";
import { AttendParams, CUT_KEYS, PARTIAL_WORDS, SCRATCH_BLOCK, SCRATCH_CUT_SUMS, SCRATCH_SUMS, UNIT_WORDS } from "../../build/params";

/** A unit, or a split. */
@unmanaged
class Unit {
  item: i32;
  kvHead: i32;
  heads: i32;
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

/** The unit's block. */
function blockOf(p: AttendParams, unit: Unit): Block {
  const block = changetype<Block>(scratch(p, SCRATCH_BLOCK));
  startBlock(p, block, unit.item, unit.kvHead, unit.heads, unit.firstRow);
  return block;
}

/** Computes one unit. Gives the index of the split that it is a piece of, -1 where it is the whole. */
export function attendUnit(p: AttendParams, index: i32): i32 {
  const unit = unitAt(p.units, index);
  const block = blockOf(p, unit);
  if (unit.cuts == 0) {
    attendBlock(p, block);
    return -1;
  }
  const end = unit.firstKey + CUT_KEYS;
  const bytes = <usize>p.dim << 2;
  let partial = p.partials + unit.partials;
  attendCut(p, block, unit.firstKey, end);
  for (let i = 0; i < block.heads * block.n; i++) {
    const row = rowOf(p, block, i);
    if (sees(row, unit.firstKey, end)) keepPartial(row, sumsOf(p, SCRATCH_CUT_SUMS, block, i), partial, bytes);
    partial += <usize>(PARTIAL_WORDS << 2) + bytes;
  }
  return unit.split;
}

/** Merges the cuts of a split whose pieces are all computed, and writes the result. */
export function mergeSplit(p: AttendParams, index: i32): void {
  const split = unitAt(p.splits, index);
  const block = blockOf(p, split);
  const bytes = <usize>p.dim << 2;
  const n = block.heads * block.n;
  let partial = p.partials + split.partials;
  for (let cut = 0; cut < split.cuts; cut++) {
    const first = split.firstKey + cut * CUT_KEYS;
    for (let i = 0; i < n; i++) {
      const row = rowOf(p, block, i);
      if (sees(row, first, first + CUT_KEYS)) mergePartial(row, partial, sumsOf(p, SCRATCH_SUMS, block, i), bytes);
      partial += <usize>(PARTIAL_WORDS << 2) + bytes;
    }
  }
  for (let i = 0; i < n; i++) finishRow(p, rowOf(p, block, i), block.sequence, sumsOf(p, SCRATCH_SUMS, block, i));
}
