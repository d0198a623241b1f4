// A prefill tile in workgroup memory as f16, and products of rows of q and keys in f16, of which sums of at most 8 are: all other
// sums, and products with values, are f32. 8-bit codes are f16 exactly, q is not: within 5e-3 of exact attention, not 1e-4.
//
// Rows of q are between Q_UNIT and 2 · Q_UNIT where they are largest: as large as lets 8 products with the format's largest
// code still be f16, so that few are so small that a device may take them for 0.

alias TileQuad = vec4<f16>;
// A chunk of dims is multiplied at once.
const PRODUCT_STEPS: u32 = 1u;

var<workgroup> queries: array<vec4<f16>, DEPTH * QUERY_STRIDE>;

fn storeQuery(at: u32, quad: vec4<f32>) {
  queries[at] = vec4<f16>(quad);
}

fn storeKey(at: u32, key: u32, quad: u32) -> bool {
  let loaded = keyQuad(key, quad);
  tile[at] = vec4<f16>(loaded.quad);
  return loaded.special;
}

fn storeValue(at: u32, key: u32, quad: u32) -> bool {
  let loaded = valueQuad(key, quad);
  tile[at] = vec4<f16>(loaded.quad);
  return loaded.special;
}

fn valueAt(at: u32) -> vec4<f32> {
  return vec4<f32>(tile[at]);
}

// DEPTH quads of a row of q or of a key.
struct Dims {
  x: vec4<f16>,
  y: vec4<f16>,
  z: vec4<f16>,
  w: vec4<f16>,
}

// 4 keys.
struct Keys {
  a: Dims,
  b: Dims,
  c: Dims,
  d: Dims,
}

fn keyAt(at: u32) -> Dims {
  return Dims(tile[at], tile[at + KEY_STRIDE], tile[at + 2u * KEY_STRIDE], tile[at + 3u * KEY_STRIDE]);
}

fn keysAt(step: u32, column: u32) -> Keys {
  return Keys(keyAt(column), keyAt(column + COLUMNS), keyAt(column + 2u * COLUMNS), keyAt(column + 3u * COLUMNS));
}

fn productOf(query: Dims, key: Dims) -> f32 {
  let quad = fma(query.w, key.w, fma(query.z, key.z, fma(query.y, key.y, query.x * key.x)));
  let pair = quad.xy + quad.zw;
  return f32(pair.x) + f32(pair.y);
}

// Sums of a row and 4 keys, with the products of a chunk's dims.
fn withProducts(sums: vec4<f32>, step: u32, row: u32, keys: Keys) -> vec4<f32> {
  let query = Dims(queries[row], queries[QUERY_STRIDE + row], queries[2u * QUERY_STRIDE + row], queries[3u * QUERY_STRIDE + row]);
  return sums + vec4<f32>(productOf(query, keys.a), productOf(query, keys.b), productOf(query, keys.c), productOf(query, keys.d));
}
