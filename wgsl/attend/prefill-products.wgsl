// A prefill tile in workgroup memory as f32, and products of rows of q and keys in f32.

alias TileQuad = vec4<f32>;
const Q_UNIT: f32 = 1.0;
// Times that a chunk of dims is multiplied in.
const PRODUCT_STEPS: u32 = DEPTH;

// Queries lie where weights lie later.
fn storeQuery(at: u32, quad: vec4<f32>) {
  memory[at] = bitcast<vec4<u32>>(quad);
}

fn storeKey(at: u32, key: u32, quad: u32) -> bool {
  let loaded = keyQuad(key, quad);
  tile[at] = loaded.quad;
  return loaded.special;
}

fn storeValue(at: u32, key: u32, quad: u32) -> bool {
  let loaded = valueQuad(key, quad);
  tile[at] = loaded.quad;
  return loaded.special;
}

fn valueAt(at: u32) -> vec4<f32> {
  return tile[at];
}

// 4 dims of 4 keys: a dim of each key beside the others.
struct Keys {
  x: vec4<f32>,
  y: vec4<f32>,
  z: vec4<f32>,
  w: vec4<f32>,
}

fn keysAt(step: u32, column: u32) -> Keys {
  let at = step * KEY_STRIDE + column;
  let a = tile[at];
  let b = tile[at + COLUMNS];
  let c = tile[at + 2u * COLUMNS];
  let d = tile[at + 3u * COLUMNS];
  return Keys(vec4<f32>(a.x, b.x, c.x, d.x), vec4<f32>(a.y, b.y, c.y, d.y), vec4<f32>(a.z, b.z, c.z, d.z), vec4<f32>(a.w, b.w, c.w, d.w));
}

// Sums of a row and 4 keys, with the products of a step's dims.
fn withProducts(sums: vec4<f32>, step: u32, row: u32, keys: Keys) -> vec4<f32> {
  let query = bitcast<vec4<f32>>(memory[step * QUERY_STRIDE + row]);
  return fma(vec4<f32>(query.w), keys.w, fma(vec4<f32>(query.z), keys.z, fma(vec4<f32>(query.y), keys.y, fma(vec4<f32>(query.x), keys.x, sums))));
}
