/**
 * sums[row][d] ← sums[row][d] · rescale[row] + Σ_key p[row][key] · v[key][d], keys ascending. Bounded.
 *
 * Only keys that the row sees are touched: a slot that it does not see may hold NaN, and 0 · NaN would reach the sum.
 * 16 dims at a time, for one row or for two that see the same keys; the order of additions is the same in both.
 */
import { ROW_BYTES, SCORE_BYTES } from "./memory";
import { addProduct } from "./product";

/** `dims` is headDim padded to 16: sums and the tile's rows have room for it. */
export function addValues(p: usize, from: i32, to: i32, tile: usize, dims: i32, rescale: f32, sums: usize): void {
  const by = f32x4.splat(rescale);
  const probabilities = p + (<usize>from << 2);
  const end = p + (<usize>to << 2);
  const first = tile + <usize>from * ROW_BYTES;
  for (let at: usize = 0; at < <usize>dims << 2; at += 64) {
    const sum = sums + at;
    let a = f32x4.mul(v128.load(sum), by);
    let b = f32x4.mul(v128.load(sum, 16), by);
    let c = f32x4.mul(v128.load(sum, 32), by);
    let d = f32x4.mul(v128.load(sum, 48), by);
    let v = first + at;
    for (let x = probabilities; x < end; x += 4) {
      const px = v128.load32_splat(x);
      a = addProduct(a, px, v128.load(v));
      b = addProduct(b, px, v128.load(v, 16));
      c = addProduct(c, px, v128.load(v, 32));
      d = addProduct(d, px, v128.load(v, 48));
      v += ROW_BYTES;
    }
    v128.store(sum, a);
    v128.store(sum, b, 16);
    v128.store(sum, c, 32);
    v128.store(sum, d, 48);
  }
}

/** The same for two rows whose probabilities lie SCORE_BYTES and whose sums lie ROW_BYTES apart. */
export function addValuesTwoRows(p: usize, from: i32, to: i32, tile: usize, dims: i32, rescale0: f32, rescale1: f32, sums: usize): void {
  const by0 = f32x4.splat(rescale0);
  const by1 = f32x4.splat(rescale1);
  const probabilities = p + (<usize>from << 2);
  const end = p + (<usize>to << 2);
  const first = tile + <usize>from * ROW_BYTES;
  for (let at: usize = 0; at < <usize>dims << 2; at += 64) {
    const sum = sums + at;
    const other = sum + ROW_BYTES;
    let a = f32x4.mul(v128.load(sum), by0);
    let b = f32x4.mul(v128.load(sum, 16), by0);
    let c = f32x4.mul(v128.load(sum, 32), by0);
    let d = f32x4.mul(v128.load(sum, 48), by0);
    let e = f32x4.mul(v128.load(other), by1);
    let f = f32x4.mul(v128.load(other, 16), by1);
    let g = f32x4.mul(v128.load(other, 32), by1);
    let h = f32x4.mul(v128.load(other, 48), by1);
    let v = first + at;
    for (let x = probabilities; x < end; x += 4) {
      const p0 = v128.load32_splat(x);
      const p1 = v128.load32_splat(x, SCORE_BYTES);
      const v0 = v128.load(v);
      a = addProduct(a, p0, v0);
      e = addProduct(e, p1, v0);
      const v1 = v128.load(v, 16);
      b = addProduct(b, p0, v1);
      f = addProduct(f, p1, v1);
      const v2 = v128.load(v, 32);
      c = addProduct(c, p0, v2);
      g = addProduct(g, p1, v2);
      const v3 = v128.load(v, 48);
      d = addProduct(d, p0, v3);
      h = addProduct(h, p1, v3);
      v += ROW_BYTES;
    }
    v128.store(sum, a);
    v128.store(sum, b, 16);
    v128.store(sum, c, 32);
    v128.store(sum, d, 48);
    v128.store(other, e);
    v128.store(other, f, 16);
    v128.store(other, g, 32);
    v128.store(other, h, 48);
  }
}
