/**
 * Online softmax of one row over one tile. Bounded.
 *
 * s = dot · kScale[key] · factor + slope · (key − position), then softcap · tanh(s / softcap); keys the row does not see
 * become −∞ by selection.
 * m' = max(m, max s), e = exp(s − m'), sum' = sum · exp(m − m') + Σ e; then p = e · weight[key], weight = vScale · 2^(bias − shift).
 * Σ e: lane l sums keys ≡ l (mod 4) ascending, then (l0 + l2) + (l1 + l3). Masked lanes add exactly 0.
 * A row that sees a NaN is NaN: max leaves NaN out, but exp and the sums keep it.
 *
 * shift: where the largest V scale that the row sees passes 2^SAFE, p would overflow with FP8's bias; the tile then is added
 * 2^shift smaller, to sums that are made so and put right afterwards (row.rescale, row.restore).
 */
import { exp1, exp4, tanh4 } from "./exp";
import { addProduct } from "./product";
import { largestExponentOf, powerOfTwo } from "./query";
import { Row } from "./rows";
import { AttendParams } from "../../build/params";

/** V scales below 2^SAFE, times 2^120, stay finite, and so do sums of their products with ±448 · 2^-120. */
@inline
const SAFE: i32 = 6;

@inline
function maxOfLanes(x: v128): f32 {
  const two = f32x4.pmax(x, v128.shuffle<i32>(x, x, 2, 3, 0, 1));
  return f32x4.extract_lane(f32x4.pmax(two, v128.shuffle<i32>(two, two, 1, 0, 3, 2)), 0);
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

/** `inside` for the keys the row sees, `outside` for the other of 4 from `lane` on. */
@inline
function select(row: Row, lane: i32, inside: v128, outside: v128): v128 {
  const lanes = i32x4.add(i32x4.splat(lane), i32x4(0, 1, 2, 3));
  return v128.bitselect(inside, outside, v128.and(i32x4.ge_s(lanes, i32x4.splat(row.from)), i32x4.lt_s(lanes, i32x4.splat(row.to))));
}

function capScores(softcap: f32, scores: usize, end: usize): void {
  const cap = f32x4.splat(softcap);
  for (; scores < end; scores += 16) v128.store(scores, f32x4.mul(cap, tanh4(f32x4.div(v128.load(scores), cap))));
}

function maskScores(row: Row, scores: usize): void {
  const nothing = f32x4.splat(-<f32>Infinity);
  for (let lane = row.from & ~3; lane < row.to; lane += 4) {
    const at = scores + (<usize>lane << 2);
    v128.store(at, select(row, lane, v128.load(at), nothing));
  }
}

/** Scores times their scales, from byte `begin` to `end` − 1; gives the largest of each lane. */
@inline
function scaleScores(row: Row, rowScores: usize, kScales: usize, begin: usize, end: usize): v128 {
  const factor = f32x4.splat(row.factor);
  let largest = f32x4.splat(-<f32>Infinity);
  for (let at = begin; at < end; at += 16) {
    const s = f32x4.mul(f32x4.mul(v128.load(rowScores + at), v128.load(kScales + at)), factor);
    v128.store(rowScores + at, s);
    largest = f32x4.pmax(largest, s);
  }
  return largest;
}

/** The same, with slope · (key − position) added; the tile begins at key `first`. */
function scaleAndTilt(row: Row, first: i32, rowScores: usize, kScales: usize, begin: usize, end: usize): v128 {
  const factor = f32x4.splat(row.factor);
  const slope = f32x4.splat(row.slope);
  let distance = i32x4.add(i32x4.splat(first - row.position + <i32>(begin >> 2)), i32x4(0, 1, 2, 3));
  let largest = f32x4.splat(-<f32>Infinity);
  for (let at = begin; at < end; at += 16, distance = i32x4.add(distance, i32x4.splat(4))) {
    const scaled = f32x4.mul(f32x4.mul(v128.load(rowScores + at), v128.load(kScales + at)), factor);
    const s = addProduct(scaled, slope, f32x4.convert_i32x4_s(distance));
    v128.store(rowScores + at, s);
    largest = f32x4.pmax(largest, s);
  }
  return largest;
}

/** Scales, tilts, caps and masks the row's scores in place; gives the largest. */
@inline
function finishScores(p: AttendParams, row: Row, first: i32, rowScores: usize, kScales: usize): f32 {
  const begin: usize = (row.from & ~3) << 2;
  const end: usize = ((row.to + 3) & ~3) << 2;
  const whole = ((row.from | row.to) & 3) == 0 && p.softcap == 0;
  let largest = p.alibiSlopes != 0 ? scaleAndTilt(row, first, rowScores, kScales, begin, end) : scaleScores(row, rowScores, kScales, begin, end);
  if (whole) return maxOfLanes(largest);
  if (p.softcap != 0) capScores(p.softcap, rowScores + begin, rowScores + end);
  maskScores(row, rowScores);
  largest = f32x4.splat(-<f32>Infinity);
  for (let at = begin; at < end; at += 16) largest = f32x4.pmax(largest, v128.load(rowScores + at));
  return maxOfLanes(largest);
}

/** The largest V scale that the row sees passes 2^SAFE by this exponent, or 0. */
function shiftOf(row: Row, vScales: usize): i32 {
  const nothing = i32x4.splat(0);
  let largest = nothing;
  for (let lane = row.from & ~3; lane < row.to; lane += 4) {
    const bits = v128.and(v128.load(vScales + (<usize>lane << 2)), i32x4.splat(0x7fffffff));
    largest = i32x4.max_s(largest, select(row, lane, bits, nothing));
  }
  return max(0, largestExponentOf(largest) - 127 - SAFE);
}

/**
 * weights[key] = vScale[key] · 2^exponent, for keys from … to − 1.
 * @returns whether none of the scales passes 2^SAFE
 */
export function weigh(vScales: usize, from: i32, to: i32, exponent: i32, weights: usize): bool {
  const unit = f32x4.splat(powerOfTwo(exponent));
  let largest = i32x4.splat(0);
  for (let at: usize = (from & ~3) << 2, end = <usize>to << 2; at < end; at += 16) {
    const scale = v128.load(vScales + at);
    largest = i32x4.max_s(largest, v128.and(scale, i32x4.splat(0x7fffffff)));
    v128.store(weights + at, f32x4.mul(scale, unit));
  }
  return largestExponentOf(largest) < 127 + SAFE;
}

/**
 * Turns the row's scores of the tile that begins at key `first` into probabilities times V scale times 2^bias, and carries its max and sum on.
 * @param weights what {@link weigh} gave for the tile and 2^bias, and `safe` what it returned
 */
export function softmaxRow(p: AttendParams, row: Row, first: i32, scores: usize, kScales: usize, vScales: usize, weights: usize, bias: i32, safe: bool): void {
  const largest = max<f32>(row.cutMax, finishScores(p, row, first, scores, kScales));
  const base = finiteBase(largest);
  const base4 = f32x4.splat(base);
  const rescale = exp1(row.cutMax - base);
  row.cutMax = largest;
  row.rescale = rescale;
  row.restore = 1;
  if (!safe) {
    const shift = shiftOf(row, vScales);
    weigh(vScales, row.from, row.to, bias - shift, weights);
    row.rescale = rescale * powerOfTwo(-shift);
    row.restore = powerOfTwo(shift);
  }
  let sum = f32x4.splat(0);
  for (let at: usize = (row.from & ~3) << 2, end = <usize>row.to << 2; at < end; at += 16) {
    const e = exp4(f32x4.sub(v128.load(scores + at), base4));
    sum = f32x4.add(sum, e);
    v128.store(scores + at, f32x4.mul(e, v128.load(weights + at)));
  }
  row.cutSum = row.cutSum * rescale + sumOfLanes(sum);
}
