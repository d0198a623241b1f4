// @ts-nocheck: AssemblyScript
/**
 * The control: attention over a contiguous f32 cache as one would first write it with SIMD, one query head at a time.
 *
 * q: (rows, queryHeads, dim), k, v: (kvHeads, capacity, dim), scores: (keys of the last row, padded to 4), out: as q.
 * Row i sees keys 0 … first + i. dim is a multiple of 32. Products and sums in f32; bounded.
 *
 * Compiled twice: with the target `relaxed`, multiplyAdd is one fused instruction.
 * Tried (cycles per key and query head of 128): weighted sum 4 keys at a time into sums in memory 59, the same tiled by 64 keys
 * no faster than 32 dimensions at a time over all keys, 59, which does better at 16k keys. score is 43. Both are exported
 * because asc otherwise inlines them into one function, in which V8 runs out of registers: 5 to 10 % slower.
 */

// @ts-ignore: decorator
@inline
function multiplyAdd(sum: v128, a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, sum);
  return f32x4.add(sum, f32x4.mul(a, b));
}

// @ts-ignore: decorator
@inline
function sumOf(x: v128): f32 {
  return f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1) + f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3);
}

/** exp of 4 values of at most 0: 2^n times a polynomial of degree 6; a scalar Mathf.exp would take longer than the products. */
// @ts-ignore: decorator
@inline
function exp4(x: v128): v128 {
  const bounded = f32x4.max(x, f32x4.splat(-87));
  const n = f32x4.nearest(f32x4.mul(bounded, f32x4.splat(1.4426950408889634)));
  const r = f32x4.sub(bounded, f32x4.mul(n, f32x4.splat(0.6931471805599453)));
  let y = multiplyAdd(f32x4.splat(1.0 / 120), r, f32x4.splat(1.0 / 720));
  y = multiplyAdd(f32x4.splat(1.0 / 24), r, y);
  y = multiplyAdd(f32x4.splat(1.0 / 6), r, y);
  y = multiplyAdd(f32x4.splat(0.5), r, y);
  y = multiplyAdd(f32x4.splat(1), r, y);
  y = multiplyAdd(f32x4.splat(1), r, y);
  return i32x4.add(y, i32x4.shl(i32x4.trunc_sat_f32x4_s(n), 23));
}

/** scores[j] = scale · q · k[j] for all keys, padded with −∞ to a multiple of 4; gives the largest. */
export function score(q: usize, k: usize, dim: usize, keys: usize, scale: f32, scores: usize): f32 {
  const end = q + (dim << 2);
  let largest: f32 = -Infinity;
  for (let j: usize = 0; j < keys; j++, k += dim << 2) {
    let a = f32x4.splat(0);
    let b = a;
    let c = a;
    let d = a;
    for (let x = q, y = k; x < end; x += 64, y += 64) {
      a = multiplyAdd(a, v128.load(x), v128.load(y));
      b = multiplyAdd(b, v128.load(x, 16), v128.load(y, 16));
      c = multiplyAdd(c, v128.load(x, 32), v128.load(y, 32));
      d = multiplyAdd(d, v128.load(x, 48), v128.load(y, 48));
    }
    const s = scale * sumOf(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)));
    store<f32>(scores + (j << 2), s);
    largest = max(largest, s);
  }
  for (let j = keys; (j & 3) != 0; j++) store<f32>(scores + (j << 2), -Infinity);
  return largest;
}

/** scores become weights; gives their sum. */
export function softmax(scores: usize, keys: usize, largest: f32): f32 {
  let sum = f32x4.splat(0);
  for (let j: usize = 0; j < keys; j += 4) {
    const x = v128.load(scores + (j << 2));
    const p = v128.andnot(exp4(f32x4.sub(x, f32x4.splat(largest))), f32x4.eq(x, f32x4.splat(-Infinity)));
    v128.store(scores + (j << 2), p);
    sum = f32x4.add(sum, p);
  }
  return sumOf(sum);
}

/** out = Σ weights[j] · v[j] · scale, 32 dimensions at a time. */
export function weightedSum(weights: usize, v: usize, dim: usize, keys: usize, scale: f32, out: usize): void {
  const end = weights + (keys << 2);
  for (let i: usize = 0; i < dim; i += 32) {
    let a = f32x4.splat(0);
    let b = a;
    let c = a;
    let d = a;
    let e = a;
    let f = a;
    let g = a;
    let h = a;
    for (let w = weights, x = v + (i << 2); w < end; w += 4, x += dim << 2) {
      const p = v128.load32_splat(w);
      a = multiplyAdd(a, p, v128.load(x));
      b = multiplyAdd(b, p, v128.load(x, 16));
      c = multiplyAdd(c, p, v128.load(x, 32));
      d = multiplyAdd(d, p, v128.load(x, 48));
      e = multiplyAdd(e, p, v128.load(x, 64));
      f = multiplyAdd(f, p, v128.load(x, 80));
      g = multiplyAdd(g, p, v128.load(x, 96));
      h = multiplyAdd(h, p, v128.load(x, 112));
    }
    const s = f32x4.splat(scale);
    const to = out + (i << 2);
    v128.store(to, f32x4.mul(a, s));
    v128.store(to, f32x4.mul(b, s), 16);
    v128.store(to, f32x4.mul(c, s), 32);
    v128.store(to, f32x4.mul(d, s), 48);
    v128.store(to, f32x4.mul(e, s), 64);
    v128.store(to, f32x4.mul(f, s), 80);
    v128.store(to, f32x4.mul(g, s), 96);
    v128.store(to, f32x4.mul(h, s), 112);
  }
}

export function attend(q: usize, k: usize, v: usize, scores: usize, out: usize, rows: usize, first: usize, queryHeads: usize, kvHeads: usize, dim: usize, capacity: usize): void {
  const group = queryHeads / kvHeads;
  const scale: f32 = 1 / Mathf.sqrt(<f32>dim);
  for (let i: usize = 0; i < rows; i++) {
    const keys = first + i + 1;
    for (let h: usize = 0; h < queryHeads; h++) {
      const at = ((i * queryHeads + h) * dim) << 2;
      const head = ((h / group) * capacity * dim) << 2;
      const largest = score(q + at, k + head, dim, keys, scale, scores);
      const sum = softmax(scores, keys, largest);
      weightedSum(scores, v + head, dim, keys, 1 / sum, out + at);
    }
  }
}

/** The ceiling: 12 independent chains of multiply and add, 96 flops a round (a 13th makes V8 spill: half the speed). The result keeps them alive. */
export function multiplyAddChains(rounds: i32, factor: f32, term: f32): f32 {
  const x = f32x4.splat(factor);
  const y = f32x4.splat(term);
  let a = f32x4.splat(0);
  let b = f32x4.splat(1);
  let c = f32x4.splat(2);
  let d = f32x4.splat(3);
  let e = f32x4.splat(4);
  let f = f32x4.splat(5);
  let g = f32x4.splat(6);
  let h = f32x4.splat(7);
  let i = f32x4.splat(8);
  let j = f32x4.splat(9);
  let k = f32x4.splat(10);
  let l = f32x4.splat(11);
  for (let round = 0; round < rounds; round++) {
    a = multiplyAdd(y, a, x);
    b = multiplyAdd(y, b, x);
    c = multiplyAdd(y, c, x);
    d = multiplyAdd(y, d, x);
    e = multiplyAdd(y, e, x);
    f = multiplyAdd(y, f, x);
    g = multiplyAdd(y, g, x);
    h = multiplyAdd(y, h, x);
    i = multiplyAdd(y, i, x);
    j = multiplyAdd(y, j, x);
    k = multiplyAdd(y, k, x);
    l = multiplyAdd(y, l, x);
  }
  const low = f32x4.add(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)), f32x4.add(e, f));
  const high = f32x4.add(f32x4.add(f32x4.add(g, h), f32x4.add(i, j)), f32x4.add(k, l));
  return sumOf(f32x4.add(low, high));
}
