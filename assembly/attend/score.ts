/**
 * score[row][key] = Σ_d q[row][d] · k[key][d]: plain dot products, not yet scaled. Bounded.
 *
 * Order: lane l sums d ≡ l (mod 4) in ascending d; then (l0 + l2) + (l1 + l3). It is the same for one row and for two,
 * for decode and prefill, so a row's bits do not depend on what it is computed with.
 *
 * Two rows by four keys at a time: 8 accumulators, 6 loads for 8 multiply-adds; V8 has 16 vector registers on x64.
 */

/** Lane sums of four accumulators: one result per lane. */
// @ts-ignore: decorator
@inline
function sumLanes(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<i32>(ab, cd, 0, 1, 4, 5), v128.shuffle<i32>(ab, cd, 2, 3, 6, 7));
}

/** One row against keys from … to − 1, both multiples of 4. `rowBytes` is a key's stride in the tile. */
export function scoreRow(q: usize, dim: i32, tile: usize, rowBytes: usize, from: i32, to: i32, scores: usize): void {
  const end = q + (<usize>dim << 2);
  for (let key = from; key < to; key += 4) {
    let k0 = tile + <usize>key * rowBytes;
    let k1 = k0 + rowBytes;
    let k2 = k1 + rowBytes;
    let k3 = k2 + rowBytes;
    let a = f32x4.splat(0);
    let b = a;
    let c = a;
    let d = a;
    for (let x = q; x < end; x += 16) {
      const qx = v128.load(x);
      a = f32x4.add(a, f32x4.mul(qx, v128.load(k0)));
      b = f32x4.add(b, f32x4.mul(qx, v128.load(k1)));
      c = f32x4.add(c, f32x4.mul(qx, v128.load(k2)));
      d = f32x4.add(d, f32x4.mul(qx, v128.load(k3)));
      k0 += 16;
      k1 += 16;
      k2 += 16;
      k3 += 16;
    }
    v128.store(scores + (<usize>key << 2), sumLanes(a, b, c, d));
  }
}

/** Two rows, `qBytes` apart, against the same keys; their scores lie `scoreBytes` apart. */
export function scoreTwoRows(q: usize, qBytes: usize, dim: i32, tile: usize, rowBytes: usize, from: i32, to: i32, scores: usize, scoreBytes: usize): void {
  const bytes: usize = <usize>dim << 2;
  for (let key = from; key < to; key += 4) {
    const k0 = tile + <usize>key * rowBytes;
    const k1 = k0 + rowBytes;
    const k2 = k1 + rowBytes;
    const k3 = k2 + rowBytes;
    const r = q + qBytes;
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
      const v0 = v128.load(k0 + x);
      a = f32x4.add(a, f32x4.mul(q0, v0));
      e = f32x4.add(e, f32x4.mul(q1, v0));
      const v1 = v128.load(k1 + x);
      b = f32x4.add(b, f32x4.mul(q0, v1));
      f = f32x4.add(f, f32x4.mul(q1, v1));
      const v2 = v128.load(k2 + x);
      c = f32x4.add(c, f32x4.mul(q0, v2));
      g = f32x4.add(g, f32x4.mul(q1, v2));
      const v3 = v128.load(k3 + x);
      d = f32x4.add(d, f32x4.mul(q0, v3));
      h = f32x4.add(h, f32x4.mul(q1, v3));
    }
    const at = scores + (<usize>key << 2);
    v128.store(at, sumLanes(a, b, c, d));
    v128.store(at + scoreBytes, sumLanes(e, f, g, h));
  }
}
