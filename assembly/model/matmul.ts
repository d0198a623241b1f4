/**
 * y = x · wᵀ, as a Hugging Face Linear does it. Bounded: products and sums in f32.
 *
 * x (m, k), w (n, k), y (m, n); k a multiple of 4, n at least 4.
 *
 * Order: lane l of an output's accumulator adds the products of elements l, l + 4, l + 8, … in turn, then
 * (lane 0 + lane 1) + (lane 2 + lane 3). It is the same in every tile, so that a row's bits do not depend on m.
 *
 * Tried, in GFLOP/s at m = 256, n = 512, k = 256 (Zen 4, Node 20; the peak is about 67):
 *   45  2 × 4 outputs, two steps of k with an exit between them: what is here (43 if not inlined)
 *   42  2 × 4, one step
 *   30  2 × 4, two steps without the exit: V8 puts all loads of a block first, and the registers spill
 *   29  3 × 4, one step; 23  3 × 3: the same
 *   47  as here, with the four rows of w interleaved; not worth a second copy of the tied embedding
 */

/** Rows of x that stay in the L1 cache (24 KB at k = 256) while all of w passes. */
@inline
const BLOCK_ROWS: usize = 24;

@inline
function multiplyAdd(sum: v128, a: v128, b: v128): v128 {
  return f32x4.add(sum, f32x4.mul(a, b));
}

/** The sum of each vector's lanes, as one vector. */
@inline
function laneSums(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 2, 4, 6), v128.shuffle<f32>(a, b, 1, 3, 5, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 2, 4, 6), v128.shuffle<f32>(c, d, 1, 3, 5, 7));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 2, 4, 6), v128.shuffle<f32>(ab, cd, 1, 3, 5, 7));
}

/** Two rows of x against four of w; rows of x and w are `stride` bytes long, those of y `yStride`. */
@inline
function tile2x4(x: usize, w: usize, stride: usize, y: usize, yStride: usize): void {
  const end = x + stride;
  let x1 = x + stride;
  let w1 = w + stride;
  let w2 = w1 + stride;
  let w3 = w2 + stride;
  let s00 = f32x4.splat(0);
  let s01 = s00, s02 = s00, s03 = s00, s10 = s00, s11 = s00, s12 = s00, s13 = s00;
  while (true) {
    let a = v128.load(x);
    let b = v128.load(x1);
    let v = v128.load(w);
    s00 = multiplyAdd(s00, a, v);
    s10 = multiplyAdd(s10, b, v);
    v = v128.load(w1);
    s01 = multiplyAdd(s01, a, v);
    s11 = multiplyAdd(s11, b, v);
    v = v128.load(w2);
    s02 = multiplyAdd(s02, a, v);
    s12 = multiplyAdd(s12, b, v);
    v = v128.load(w3);
    s03 = multiplyAdd(s03, a, v);
    s13 = multiplyAdd(s13, b, v);
    if (x + 16 == end) break;

    a = v128.load(x, 16);
    b = v128.load(x1, 16);
    v = v128.load(w, 16);
    s00 = multiplyAdd(s00, a, v);
    s10 = multiplyAdd(s10, b, v);
    v = v128.load(w1, 16);
    s01 = multiplyAdd(s01, a, v);
    s11 = multiplyAdd(s11, b, v);
    v = v128.load(w2, 16);
    s02 = multiplyAdd(s02, a, v);
    s12 = multiplyAdd(s12, b, v);
    v = v128.load(w3, 16);
    s03 = multiplyAdd(s03, a, v);
    s13 = multiplyAdd(s13, b, v);
    x += 32;
    x1 += 32;
    w += 32;
    w1 += 32;
    w2 += 32;
    w3 += 32;
    if (x == end) break;
  }
  v128.store(y, laneSums(s00, s01, s02, s03));
  v128.store(y + yStride, laneSums(s10, s11, s12, s13));
}

/** One row of x against four of w: the whole of a decode step, which waits for w to come from memory. */
@inline
function tile1x4(x: usize, w: usize, stride: usize, y: usize): void {
  let w1 = w + stride;
  let w2 = w1 + stride;
  let w3 = w2 + stride;
  let s0 = f32x4.splat(0);
  let s1 = s0, s2 = s0, s3 = s0;
  for (const end = x + stride; x < end; x += 16) {
    const a = v128.load(x);
    s0 = multiplyAdd(s0, a, v128.load(w));
    s1 = multiplyAdd(s1, a, v128.load(w1));
    s2 = multiplyAdd(s2, a, v128.load(w2));
    s3 = multiplyAdd(s3, a, v128.load(w3));
    w += 16;
    w1 += 16;
    w2 += 16;
    w3 += 16;
  }
  v128.store(y, laneSums(s0, s1, s2, s3));
}

export function matmul(x: usize, w: usize, y: usize, m: usize, n: usize, k: usize): void {
  const stride = k << 2;
  const yStride = n << 2;
  for (let block: usize = 0; block < m; block += BLOCK_ROWS) {
    const blockEnd = min(block + BLOCK_ROWS, m);
    for (let column: usize = 0; column < n; column += 4) {
      // The last tile begins earlier where n is no multiple of 4, and computes a few outputs once more, to the same bits.
      const j = min(column, n - 4);
      const wRows = w + j * stride;
      let row = block;
      for (; row + 2 <= blockEnd; row += 2) tile2x4(x + row * stride, wRows, stride, y + row * yStride + (j << 2), yStride);
      if (row < blockEnd) tile1x4(x + row * stride, wRows, stride, y + row * yStride + (j << 2));
    }
  }
}
