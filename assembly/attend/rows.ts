/** What a query row carries through its tiles and cuts. ROW_WORDS of src/layout.ts is its size. */
import { AttendParams, ROW_WORDS } from "../../build/params";

@unmanaged
export class Row {
  /** Its query: (dim) f32. */
  q: usize;
  /** Query head. */
  head: i32;
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

/** Sets up rows r0 … r0 + n − 1 of (query row × head of the group), and which keys each sees. */
export function startRows(p: AttendParams, rows: usize, kvHead: i32, firstRow: i32, position: i32, keys: i32, r0: i32, n: i32): void {
  const group = p.queryHeads / p.kvHeads;
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    const i = (r0 + r) / group;
    const at = position + i;
    row.head = kvHead * group + (r0 + r) % group;
    row.q = p.q + <usize>((firstRow + i) * p.queryHeads + row.head) * (<usize>p.dim << 2);
    // In 64 bits: a window may be as wide as 2³¹ − 1, and `at` negative.
    row.first = p.windowLeft < 0 ? 0 : <i32>max<i64>(0, <i64>at - p.windowLeft);
    let end = keys;
    if (p.causal) end = min(end, at + 1);
    if (p.windowRight >= 0) end = <i32>min<i64>(end, <i64>at + p.windowRight + 1);
    row.end = end;
    row.merged = 0;
    row.max = -<f32>Infinity;
    row.sum = 0;
  }
}
