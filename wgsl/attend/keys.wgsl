// Where keys and values lie: pages of 16-byte units, found through the block table.

@group(0) @binding(3) var<storage, read> q: array<u32>;
@group(0) @binding(4) var<storage, read> blockTable: array<i32>;
@group(0) @binding(5) var<storage, read> pages: array<vec4<u32>>;

// Stands for the page of a key that is not there.
const ABSENT: u32 = 0xffffffffu;

// First unit of the page that holds a key, or ABSENT.
fn pageOf(sequence: u32, key: u32) -> u32 {
  let page = u32(blockTable[sequence * params.maxBlocks + key / params.blockSize]);
  // A negative entry is a large one here.
  return select(ABSENT, page * params.pageUnits, page < params.pageCount);
}

// First unit of a key's or a value's row in its page.
fn keyRow(page: u32, kvHead: u32, key: u32) -> u32 {
  return page + params.kCodes + kvHead * params.kHeadStride + (key % params.blockSize) * params.kTokenStride;
}

fn valueRow(page: u32, kvHead: u32, key: u32) -> u32 {
  return page + params.vCodes + kvHead * params.vHeadStride + (key % params.blockSize) * params.vTokenStride;
}

// The scale of all of a key, or of a value.
fn keyScale(page: u32, kvHead: u32, key: u32) -> f32 {
  if (K_GROUP_QUADS > 0u || params.kScales == 0u) { return 1.0; }
  let place = key % params.blockSize;
  return bitcast<f32>(pages[page + params.kScales + kvHead * params.kScaleHeadStride + place / 4u][place % 4u]);
}

fn valueScale(page: u32, kvHead: u32, key: u32) -> f32 {
  if (V_GROUP_QUADS > 0u || params.vScales == 0u) { return 1.0; }
  let place = key % params.blockSize;
  return bitcast<f32>(pages[page + params.vScales + kvHead * params.vScaleHeadStride + place / 4u][place % 4u]);
}

// Elements 4 · quad … of a row of q, times what is given for each channel of K, as bits of f32.
fn queryQuad(headRow: u32, kvHead: u32, quad: u32) -> vec4<u32> {
  let stored = storedQuery(headRow, quad);
  if (params.kChannels == 0u) { return stored; }
  return bitcast<vec4<u32>>(bitcast<vec4<f32>>(stored) * channelQuad(params.kChannels, kvHead, quad));
}

fn storedQuery(headRow: u32, quad: u32) -> vec4<u32> {
  let at = headRow * QUADS + quad;
  if (params.dtype == DTYPE_F32) { return vec4<u32>(q[4u * at], q[4u * at + 1u], q[4u * at + 2u], q[4u * at + 3u]); }
  let low = q[2u * at];
  let high = q[2u * at + 1u];
  if (params.dtype == DTYPE_BF16) { return vec4<u32>(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u); }
  return vec4<u32>(widenF16(low & 0xffffu), widenF16(low >> 16u), widenF16(high & 0xffffu), widenF16(high >> 16u));
}

// Powers of two that bring a row of q, whose largest magnitude has these bits, between 1 and 2, and back. Products then
// neither overflow nor vanish, and no bit of q is lost. x: what q is multiplied by, y: what undoes it.
fn powersOf(largest: u32) -> vec2<f32> {
  let exponent = clamp(largest >> 23u, 1u, 253u);
  // Infinity and NaN are left to speak for themselves.
  return select(vec2<f32>(bitcast<f32>((254u - exponent) << 23u), bitcast<f32>(exponent << 23u)), vec2<f32>(1.0, 1.0), largest >= 0x7f800000u);
}

fn largestOf(quad: vec4<u32>) -> u32 {
  let bits = quad & vec4<u32>(0x7fffffffu);
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}
