/**
 * Cuts of the KV axis joined, in ascending order, and the result written. Bounded.
 *
 * m = max(mA, mB), sum = sumA · exp(mA − m) + sumB · exp(mB − m), and the value sums alike.
 * At the end a sink joins max and sum; out = sums / sum, lse = m + ln(sum).
 */
import { exp1, ln } from "./exp";
import { Row } from "./rows";
import { finiteBase } from "./softmax";
import { AttendParams, SideParams } from "../../build/params";

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

/** Writes out and lse of a row. */
export function finishRow(p: AttendParams, row: Row, sums: usize): void {
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
  const vScale = f32x4.splat(changetype<SideParams>(p.v).scale);
  for (let at: usize = 0; at < bytes; at += 16) {
    v128.store(out + at, f32x4.mul(f32x4.mul(v128.load(sums + at), share), vScale));
  }
  // −∞ is the sign of a row that sees nothing; one whose scores are all −∞ is 0 / 0.
  store<f32>(lse, sum == 0 ? <f32>NaN : <f32>(<f64>base + ln(sum)));
}
