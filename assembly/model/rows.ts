/**
 * What stands between the matmuls, row by row or element by element. Bounded: f32 throughout. Each element's result depends
 * on its own row alone. All lengths are multiples of 4.
 */

/** y[r] = x[r] / √(mean(x[r]²) + epsilon) · weight; x, y (rows, dim), weight (dim). */
export function rmsnorm(x: usize, weight: usize, y: usize, rows: usize, dim: usize, epsilon: f32): void {
  const stride = dim << 2;
  for (let row: usize = 0; row < rows; row++) {
    let squares = f32x4.splat(0);
    for (let i: usize = 0; i < stride; i += 16) {
      const a = v128.load(x + i);
      squares = f32x4.add(squares, f32x4.mul(a, a));
    }
    const sum =
      f32x4.extract_lane(squares, 0) + f32x4.extract_lane(squares, 1) + (f32x4.extract_lane(squares, 2) + f32x4.extract_lane(squares, 3));
    const factor = f32x4.splat(1 / sqrt<f32>(sum / <f32>dim + epsilon));
    for (let i: usize = 0; i < stride; i += 16) {
      v128.store(y + i, f32x4.mul(f32x4.mul(v128.load(x + i), factor), v128.load(weight + i)));
    }
    x += stride;
    y += stride;
  }
}

/**
 * Turns the pairs (x[i], x[i + headDim / 2]) of each head by their token's angles, in place: the rotate-half convention.
 * x (tokens, heads, headDim), table (tokens, cos | sin, headDim / 2).
 */
export function rope(x: usize, table: usize, tokens: usize, heads: usize, headDim: usize): void {
  const half = headDim << 1;
  for (let token: usize = 0; token < tokens; token++) {
    for (let head: usize = 0; head < heads; head++) {
      for (let i: usize = 0; i < half; i += 16) {
        const a = v128.load(x + i);
        const b = v128.load(x + half + i);
        const cos = v128.load(table + i);
        const sin = v128.load(table + half + i);
        v128.store(x + i, f32x4.sub(f32x4.mul(a, cos), f32x4.mul(b, sin)));
        v128.store(x + half + i, f32x4.add(f32x4.mul(b, cos), f32x4.mul(a, sin)));
      }
      x += half << 1;
    }
    table += half << 1;
  }
}

/**
 * e^x with a relative error below 2e-7 for |x| ≤ 87, beyond which it stays where it is at ±87. With n = round(x / ln 2),
 * e^x = 2ⁿ · e^r where |r| ≤ ln 2 / 2; there the Taylor series to r⁶ is off by at most r⁷/7! = 1.2e-7. ln 2 is
 * subtracted in two parts, the first short enough that n times it is exact.
 */
@inline
function exp(x: v128): v128 {
  x = f32x4.max(f32x4.min(x, f32x4.splat(87)), f32x4.splat(-87));
  const n = f32x4.nearest(f32x4.mul(x, f32x4.splat(1.4426950408889634)));
  const r = f32x4.sub(f32x4.sub(x, f32x4.mul(n, f32x4.splat(0.693145751953125))), f32x4.mul(n, f32x4.splat(1.428606820309417e-6)));
  let series = f32x4.splat(1 / 720.0);
  series = f32x4.add(f32x4.mul(series, r), f32x4.splat(1 / 120.0));
  series = f32x4.add(f32x4.mul(series, r), f32x4.splat(1 / 24.0));
  series = f32x4.add(f32x4.mul(series, r), f32x4.splat(1 / 6.0));
  series = f32x4.add(f32x4.mul(series, r), f32x4.splat(0.5));
  series = f32x4.add(f32x4.mul(series, r), f32x4.splat(1));
  series = f32x4.add(f32x4.mul(series, r), f32x4.splat(1));
  const power = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(n), i32x4.splat(127)), 23);
  return f32x4.mul(series, power);
}

/** gate = silu(gate) · up, with silu(g) = g / (1 + e⁻ᵍ); both (count). */
export function siluMul(gate: usize, up: usize, count: usize): void {
  const one = f32x4.splat(1);
  for (const end = gate + (count << 2); gate < end; gate += 16) {
    const g = v128.load(gate);
    const silu = f32x4.div(g, f32x4.add(one, exp(f32x4.neg(g))));
    v128.store(gate, f32x4.mul(silu, v128.load(up)));
    up += 16;
  }
}

/** x += y; both (count). */
export function add(x: usize, y: usize, count: usize): void {
  for (const end = x + (count << 2); x < end; x += 16) {
    v128.store(x, f32x4.add(v128.load(x), v128.load(y)));
    y += 16;
  }
}
