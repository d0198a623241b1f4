/**
 * Online softmax of one row over one tile. Bounded.
 *
 * s = dot · kScale[key] · softmaxScale, then softcap · tanh(s / softcap); keys the row does not see become −∞ by selection.
 * m' = max(m, max s), p = exp(s − m'), sum' = sum · exp(m − m') + Σ p; then p is multiplied by the key's V scale.
 * Σ p: lane l sums keys ≡ l (mod 4) ascending, then (l0 + l2) + (l1 + l3). Masked lanes add exactly 0.
 * NaN passes through max, exp and sums: a row that sees one is NaN.
 */
import { exp1, exp4, tanh4 } from "./exp";
import { Row } from "./rows";
import { AttendParams } from "../../build/params";

@inline
function maxOfLanes(x: v128): f32 {
  const two = f32x4.max(x, v128.shuffle<i32>(x, x, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.max(two, v128.shuffle<i32>(two, two, 1, 0, 3, 2)), 0);
}

@inline
function sumOfLanes(x: v128): f32 {
  const two = f32x4.add(x, v128.shuffle<i32>(x, x, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.add(two, v128.shuffle<i32>(two, two, 1, 0, 3, 2)), 0);
}

/** Where nothing larger than −∞ was seen, exp needs a finite base: exp(−∞ − 0) = 0. */
@inline
export function finiteBase(max: f32): f32 {
  return max == -<f32>Infinity ? 0 : max;
}

/** Scales, caps and masks the row's scores of keys row.from … row.to − 1 in place; gives the largest. */
function scaleScores(p: AttendParams, row: Row, scores: usize, kScales: usize): f32 {
  const softmaxScale = f32x4.splat(p.softmaxScale);
  const cap = f32x4.splat(p.softcap);
  const from = i32x4.splat(row.from);
  const to = i32x4.splat(row.to);
  const nothing = f32x4.splat(-<f32>Infinity);
  let scale = f32x4.splat(p.kScale);
  let largest = nothing;
  let lane = i32x4.add(i32x4.splat(row.from & ~3), i32x4(0, 1, 2, 3));
  for (let at: usize = (row.from & ~3) << 2; at < <usize>row.to << 2; at += 16) {
    if (p.kScales != 0) scale = v128.load(kScales + at);
    let s = f32x4.mul(f32x4.mul(v128.load(scores + at), scale), softmaxScale);
    if (p.softcap != 0) s = f32x4.mul(cap, tanh4(f32x4.div(s, cap)));
    s = v128.bitselect(s, nothing, v128.and(i32x4.ge_s(lane, from), i32x4.lt_s(lane, to)));
    v128.store(scores + at, s);
    largest = f32x4.max(largest, s);
    lane = i32x4.add(lane, i32x4.splat(4));
  }
  return maxOfLanes(largest);
}

/** Turns the row's scores of this tile into probabilities times V scale, and carries its max and sum on. */
export function softmaxRow(p: AttendParams, row: Row, scores: usize, kScales: usize, vScales: usize): void {
  const largest = max<f32>(row.cutMax, scaleScores(p, row, scores, kScales));
  const base = finiteBase(largest);
  const base4 = f32x4.splat(base);
  row.rescale = exp1(row.cutMax - base);
  row.cutMax = largest;
  let sum = f32x4.splat(0);
  for (let at: usize = (row.from & ~3) << 2; at < <usize>row.to << 2; at += 16) {
    const e = exp4(f32x4.sub(v128.load(scores + at), base4));
    sum = f32x4.add(sum, e);
    v128.store(scores + at, p.vScales != 0 ? f32x4.mul(e, v128.load(vScales + at)) : e);
  }
  row.cutSum = row.cutSum * row.rescale + sumOfLanes(sum);
}
