/**
 * Cuts of the KV axis joined, in ascending order, and the result written. Bounded.
 *
 * m = max(mA, mB), sum = sumA · exp(mA − m) + sumB · exp(mB − m), and the value sums alike.
 * At the end a sink joins max and sum; out = sums / sum · the given scale of V, lse = m + ln(sum).
 */
import { exp1, ln } from "./exp";
import { Row } from "./rows";
import { finiteBase } from "./softmax";
import { givenScales } from "./tile";
import { AttendParams, PARTIAL_WORDS, SideParams } from "../../build/params";

/** Joins a cut that the row saw something of into the row's totals; `bytes` of value sums. */
export function mergeCut(row: Row, cutSums: usize, sums: usize, bytes: usize): void {
  if (!row.merged) {
    row.merged = 1;
    row.max = row.cutMax;
    row.sum = row.cutSum;
    memory.copy(sums, cutSums, bytes);
    return;
  }
  const largest = max<f32>(row.max, row.cutMax);
  const base = finiteBase(largest);
  const a = exp1(row.max - base);
  const b = exp1(row.cutMax - base);
  row.max = largest;
  row.sum = row.sum * a + row.cutSum * b;
  const a4 = f32x4.splat(a);
  const b4 = f32x4.splat(b);
  for (let at: usize = 0; at < bytes; at += 16) {
    v128.store(sums + at, f32x4.add(f32x4.mul(v128.load(sums + at), a4), f32x4.mul(v128.load(cutSums + at), b4)));
  }
}

/** Keeps what a cut gave to a row, for {@link mergePartial}; layout in src/layout.ts (PARTIAL_WORDS). */
export function keepPartial(row: Row, cutSums: usize, partial: usize, bytes: usize): void {
  store<f32>(partial, row.cutMax);
  store<f32>(partial, row.cutSum, 4);
  memory.copy(partial + (PARTIAL_WORDS << 2), cutSums, bytes);
}

/** {@link mergeCut} of a cut that may have been computed elsewhere. */
export function mergePartial(row: Row, partial: usize, sums: usize, bytes: usize): void {
  row.cutMax = load<f32>(partial);
  row.cutSum = load<f32>(partial, 4);
  mergeCut(row, partial + (PARTIAL_WORDS << 2), sums, bytes);
}

/** Writes out and lse of a row. */
export function finishRow(p: AttendParams, row: Row, sequence: i32, sums: usize): void {
  const bytes = <usize>p.dim << 2;
  const index = (row.q - p.q) / bytes;
  const out = p.out + index * bytes;
  const lse = p.lse + (index << 2);
  const sink = p.sinks != 0 ? load<f32>(p.sinks + (<usize>row.head << 2)) : -<f32>Infinity;
  if (row.first >= row.end) {
    memory.fill(out, 0, bytes);
    store<f32>(lse, sink);
    return;
  }
  const base = finiteBase(max<f32>(row.max, sink));
  const own = exp1(row.max - base);
  const sum = row.sum * own + exp1(sink - base);
  const share = f32x4.splat(own / sum);
  const v = changetype<SideParams>(p.v);
  const scales = givenScales(v, sequence, row.head / (p.queryHeads / p.kvHeads));
  const one = v128.load32_splat(scales);
  for (let at: usize = 0; at < bytes; at += 16) {
    const scale = v.perChannel != 0 ? v128.load(scales + at) : one;
    v128.store(out + at, f32x4.mul(f32x4.mul(v128.load(sums + at), share), scale));
  }
  // −∞ is the sign of a row that sees nothing; one whose scores are all −∞ is 0 / 0.
  store<f32>(lse, sum == 0 ? <f32>NaN : <f32>(<f64>base + ln(sum)));
}
