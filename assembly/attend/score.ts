/**
 * score[row][key] = Σ_d q[row][d] · k[key][d]: plain dot products, not yet scaled. Bounded.
 *
 * Order: lane l sums d ≡ l (mod 4) in ascending d; then (l0 + l2) + (l1 + l3). It is the same for one row and for two,
 * for decode and prefill, so a row's bits do not depend on what it is computed with.
 *
 * Two rows by four keys at a time: 8 accumulators and 6 loads just fit V8's 15 free vector registers on x64; a loop body
 * of twice that spilled accumulators and was a quarter slower. Decoding keys in registers for four rows, instead of
 * reading them from the tile, spilled too: 20 instead of 35 GFLOP/s, no better than decoding first.
 */
import { ROW_BYTES, SCORE_BYTES } from "./memory";
import { addProduct } from "./product";

/** Lane sums of four accumulators: one result per lane. */
@inline
function sumLanes(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<i32>(ab, cd, 0, 1, 4, 5), v128.shuffle<i32>(ab, cd, 2, 3, 6, 7));
}

/** One row against keys from … to − 1 of the tile, both multiples of 4. */
export function scoreRow(q: usize, dim: i32, tile: usize, from: i32, to: i32, scores: usize): void {
  const bytes = <usize>dim << 2;
  for (let key = from; key < to; key += 4) {
    const k = tile + <usize>key * ROW_BYTES;
    let a = f32x4.splat(0);
    let b = a;
    let c = a;
    let d = a;
    for (let x: usize = 0; x < bytes; x += 16) {
      const qx = v128.load(q + x);
      a = addProduct(a, qx, v128.load(k + x));
      b = addProduct(b, qx, v128.load(k + x, ROW_BYTES));
      c = addProduct(c, qx, v128.load(k + x, 2 * ROW_BYTES));
      d = addProduct(d, qx, v128.load(k + x, 3 * ROW_BYTES));
    }
    v128.store(scores + (<usize>key << 2), sumLanes(a, b, c, d));
  }
}

/** Two rows, `qBytes` apart, against the same keys; their scores lie SCORE_BYTES apart. */
export function scoreTwoRows(q: usize, qBytes: usize, dim: i32, tile: usize, from: i32, to: i32, scores: usize): void {
  const bytes = <usize>dim << 2;
  const r = q + qBytes;
  for (let key = from; key < to; key += 4) {
    const k = tile + <usize>key * ROW_BYTES;
    let a = f32x4.splat(0);
    let b = a;
    let c = a;
    let d = a;
    let e = a;
    let f = a;
    let g = a;
    let h = a;
    for (let x: usize = 0; x < bytes; x += 16) {
      const q0 = v128.load(q + x);
      const q1 = v128.load(r + x);
      const k0 = v128.load(k + x);
      a = addProduct(a, q0, k0);
      e = addProduct(e, q1, k0);
      const k1 = v128.load(k + x, ROW_BYTES);
      b = addProduct(b, q0, k1);
      f = addProduct(f, q1, k1);
      const k2 = v128.load(k + x, 2 * ROW_BYTES);
      c = addProduct(c, q0, k2);
      g = addProduct(g, q1, k2);
      const k3 = v128.load(k + x, 3 * ROW_BYTES);
      d = addProduct(d, q0, k3);
      h = addProduct(h, q1, k3);
    }
    const at = scores + (<usize>key << 2);
    v128.store(at, sumLanes(a, b, c, d));
    v128.store(at, sumLanes(e, f, g, h), SCORE_BYTES);
  }
}
