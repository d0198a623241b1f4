// Keys and values of new tokens → their slots in the pages, quantized on the way. Exact.
//
// AppendParams is `gpuAppendParams` of src/layout.ts; places and strides in a page are in 4-byte words. Constants are:
//   WORKGROUP             invocations per workgroup, a multiple of LANES
//   LANES                 invocations per row: a power of two, at least headDim / 4
//   K_FORMAT, V_FORMAT    of the codes. f16 and f32 are stored unscaled, without quantize.wgsl
//   K_CHANNEL, V_CHANNEL  whether each dim has a given scale of its own, and not each head, or all
//   K_GROUP_LANES, V_GROUP_LANES  invocations that share a computed scale: LANES where a row has one
//
// The first half of the workgroups takes keys, the second values: all invocations of one do the same.

@group(0) @binding(0) var<uniform> params: AppendParams;
// x: (tokens, kvHeads, headDim), 4 f32 or 8 f16 or bf16 at a time
@group(0) @binding(1) var<storage, read> keys: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> values: array<vec4<u32>>;
// slotMapping: (tokens), page · blockSize + place; negative = skip
@group(0) @binding(3) var<storage, read> slotMapping: array<i32>;
@group(0) @binding(4) var<storage, read_write> pages: array<u32>;
@group(0) @binding(5) var<storage, read_write> status: array<atomic<u32>>;
// Bits of the given scales of keys, then of values: where each begins, and how they are found, params say.
@group(0) @binding(6) var<storage, read> givenScales: array<u32>;

// Rows, token × head, of a workgroup; and groups of a row that may have scales of their own.
const ROWS: u32 = WORKGROUP / LANES;
const LEAST_LANES: u32 = min(K_GROUP_LANES, V_GROUP_LANES);
const GROUPS: u32 = (LANES + LEAST_LANES - 1u) / LEAST_LANES;

// (row, group)
var<workgroup> amax: array<atomic<u32>, ROWS * GROUPS>;

// What is done with keys, or with values.
struct Side {
  isValue: bool,
  format: u32,
  codes: u32,
  headStride: u32,
  tokenStride: u32,
  // 0: none in the page, given ones are used.
  scales: u32,
  scaleHeadStride: u32,
  scaleGroupStride: u32,
  given: u32,
  givenHeadStride: u32,
  givenDimStride: u32,
  recipe: Recipe,
}

fn sideOf(isValue: bool) -> Side {
  if (isValue) {
    let recipe = Recipe(params.vQuotient, params.vAmaxFloor, params.vScaleFloor, params.vScaleIfZero, params.vMax, params.vPrecision, params.vLeast);
    return Side(isValue, V_FORMAT, params.vCodes, params.vHeadStride, params.vTokenStride, params.vScales, params.vScaleHeadStride, params.vScaleGroupStride, params.vGiven, params.vGivenHeadStride, params.vGivenDimStride, recipe);
  }
  let recipe = Recipe(params.kQuotient, params.kAmaxFloor, params.kScaleFloor, params.kScaleIfZero, params.kMax, params.kPrecision, params.kLeast);
  return Side(isValue, K_FORMAT, params.kCodes, params.kHeadStride, params.kTokenStride, params.kScales, params.kScaleHeadStride, params.kScaleGroupStride, params.kGiven, params.kGivenHeadStride, params.kGivenDimStride, recipe);
}

// The row's slot; negative: none.
fn slotOf(row: u32) -> i32 {
  let token = row / params.kvHeads;
  if (token >= params.tokens) {
    return -1;
  }
  let slot = slotMapping[token];
  if (slot >= 0 && u32(slot) >= params.slots) {
    atomicOr(&status[0], BAD_SLOT);
    return -1;
  }
  return slot;
}

fn widen(half: u32) -> u32 {
  if (params.dtype == DTYPE_F16) {
    return widenF16(half);
  }
  return widenBF16(half);
}

fn load(isValue: bool, at: u32) -> vec4<u32> {
  if (isValue) {
    return values[at];
  }
  return keys[at];
}

// A lane's 4 values of its row, as f32. Two lanes share what is loaded of halves.
fn loadFour(isValue: bool, row: u32, lane: u32) -> vec4<u32> {
  let quad = row * (params.headDim / 4u) + lane;
  if (params.dtype == DTYPE_F32) {
    return load(isValue, quad);
  }
  let both = load(isValue, quad / 2u);
  let halves = select(both.xy, both.zw, quad % 2u != 0u);
  return vec4<u32>(widen(halves.x & 0xffffu), widen(halves.x >> 16u), widen(halves.y & 0xffffu), widen(halves.y >> 16u));
}

// A lane's 4 values to their place in the row at `codes`.
fn storeUnscaled(format: u32, codes: u32, lane: u32, x: vec4<u32>) {
  if (format == FORMAT_F16) {
    pages[codes + 2u * lane] = narrowF16(x.x) | (narrowF16(x.y) << 16u);
    pages[codes + 2u * lane + 1u] = narrowF16(x.z) | (narrowF16(x.w) << 16u);
    return;
  }
  for (var i = 0u; i < 4u; i++) {
    pages[codes + 4u * lane + i] = x[i];
  }
}

fn magnitudeOrZero(x: u32) -> u32 {
  let magnitude = x & ~SIGN;
  return select(magnitude, 0u, magnitude > INFINITY);
}

fn largestOfFour(x: vec4<u32>) -> u32 {
  return max(max(magnitudeOrZero(x.x), magnitudeOrZero(x.y)), max(magnitudeOrZero(x.z), magnitudeOrZero(x.w)));
}

// Which of its row's groups a lane is part of.
fn groupOf(isValue: bool, lane: u32) -> u32 {
  return select(lane / K_GROUP_LANES, lane / V_GROUP_LANES, isValue);
}

// Whether a lane is the first of its group, which stores the scale of all.
fn isFirst(isValue: bool, lane: u32) -> bool {
  return select(lane % K_GROUP_LANES, lane % V_GROUP_LANES, isValue) == 0u;
}

// The scale of a group, in which all its lanes have a part. Each then computes it for itself: on SwiftShader, 10 % faster
// than one lane for all and a second barrier.
fn computeScale(at: u32, x: vec4<u32>, recipe: Recipe) -> RowScale {
  atomicMax(&amax[at], largestOfFour(x));
  workgroupBarrier();
  return scaleOf(atomicLoad(&amax[at]), recipe);
}

// Each lane makes one word of codes. Workgroups are spread over x and y, since each may count to 65535 only.
@compute @workgroup_size(WORKGROUP)
fn append(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let index = group.x + group.y * groups.x;
  let isValue = index >= params.sideWorkgroups;
  let side = sideOf(isValue);
  let place = invocation / LANES;
  let lane = invocation % LANES;
  let row = (index - select(0u, params.sideWorkgroups, isValue)) * ROWS + place;
  let slot = slotOf(row);
  let stores = slot >= 0 && 4u * lane < params.headDim;
  let page = u32(slot) / params.blockSize * params.pageWords;
  let token = u32(slot) % params.blockSize;
  let head = row % params.kvHeads;
  let codes = page + side.codes + head * side.headStride + token * side.tokenStride;
  var x = vec4<u32>();
  if (stores) {
    x = loadFour(isValue, row, lane);
  }
  if (side.format == FORMAT_F16 || side.format == FORMAT_F32) {
    if (stores) {
      storeUnscaled(side.format, codes, lane, x);
    }
    return;
  }
  let encoding = encodingOf(side.format);
  let given = side.given + head * side.givenHeadStride;
  if (select(K_CHANNEL, V_CHANNEL, isValue)) {
    if (stores) {
      let first = given + 4u * lane * side.givenDimStride;
      let scales = vec4<u32>(givenScales[first], givenScales[first + side.givenDimStride], givenScales[first + 2u * side.givenDimStride], givenScales[first + 3u * side.givenDimStride]);
      pages[codes + lane] = divideFour(x, scales, side.recipe.least, encoding);
    }
    return;
  }
  var operand = 0u;
  if (side.scales != 0u) {
    let group = groupOf(isValue, lane);
    let computed = computeScale(place * GROUPS + group, x, side.recipe);
    if (stores && isFirst(isValue, lane)) {
      pages[page + side.scales + head * side.scaleHeadStride + group * side.scaleGroupStride + token] = computed.scale;
    }
    operand = computed.operand;
  } else {
    operand = operandOf(givenScales[given], side.recipe.quotient);
  }
  if (stores) {
    pages[codes + lane] = quantizeFour(x, operand, side.recipe, encoding);
  }
}
