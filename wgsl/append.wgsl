// Keys or values of new tokens → their slots in the pages, quantized on the way. Exact. One side at a time.
//
// AppendParams is `gpuAppendParams` of src/layout.ts; places and strides in a page are in 4-byte words. Constants are:
//   WORKGROUP   invocations per workgroup, a multiple of LANES
//   LANES       invocations per row: a power of two, at least headDim / 4
//   OUTPUT      format of the codes. f16 and f32 are stored unscaled, without quantize.wgsl

@group(0) @binding(0) var<uniform> params: AppendParams;
// x: (tokens, kvHeads, headDim), 2 f32 or 4 f16 or bf16 at a time
@group(0) @binding(1) var<storage, read> values: array<vec2<u32>>;
// slotMapping: (tokens), page · blockSize + place; negative = skip
@group(0) @binding(2) var<storage, read> slotMapping: array<i32>;
@group(0) @binding(3) var<storage, read_write> pages: array<u32>;
@group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>>;

// Rows, token × head, of a workgroup.
const ROWS: u32 = WORKGROUP / LANES;

var<workgroup> amax: array<atomic<u32>, ROWS>;

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

// A lane's 4 values of its row, as f32.
fn loadFour(row: u32, lane: u32) -> vec4<u32> {
  if (params.dtype == DTYPE_F32) {
    let at = row * (params.headDim / 2u) + 2u * lane;
    return vec4<u32>(values[at], values[at + 1u]);
  }
  let halves = values[row * (params.headDim / 4u) + lane];
  return vec4<u32>(widen(halves.x & 0xffffu), widen(halves.x >> 16u), widen(halves.y & 0xffffu), widen(halves.y >> 16u));
}

// A lane's 4 values to their place in the row at `codes`.
fn storeUnscaled(codes: u32, lane: u32, x: vec4<u32>) {
  if (OUTPUT == FORMAT_F16) {
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

// The scale of a row, in which all its lanes have a part. Each then computes it for itself: on SwiftShader, 10 % faster
// than one lane for all and a second barrier.
fn computeScale(place: u32, x: vec4<u32>) -> RowScale {
  atomicMax(&amax[place], largestOfFour(x));
  workgroupBarrier();
  let recipe = Recipe(params.quotient, params.amaxFloor, params.scaleFloor, params.scaleIfZero, params.formatMax);
  return scaleOf(atomicLoad(&amax[place]), recipe);
}

// Each lane makes one word of codes. Workgroups are spread over x and y, since each may count to 65535 only.
@compute @workgroup_size(WORKGROUP)
fn append(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let place = invocation / LANES;
  let lane = invocation % LANES;
  let row = (group.x + group.y * groups.x) * ROWS + place;
  let slot = slotOf(row);
  let stores = slot >= 0 && 4u * lane < params.headDim;
  let page = u32(slot) / params.blockSize * params.pageWords;
  let token = u32(slot) % params.blockSize;
  let head = row % params.kvHeads;
  let codes = page + params.codes + head * params.headStride + token * params.tokenStride;
  var x = vec4<u32>();
  if (stores) {
    x = loadFour(row, lane);
  }
  if (OUTPUT == FORMAT_F16 || OUTPUT == FORMAT_F32) {
    if (stores) {
      storeUnscaled(codes, lane, x);
    }
    return;
  }
  var operand = 0u;
  if (params.scales != 0u) {
    let computed = computeScale(place, x);
    if (stores && lane == 0u) {
      pages[page + params.scales + head * params.scaleHeadStride + token] = computed.scale;
    }
    operand = computed.operand;
  } else {
    operand = operandOf(params.givenScale, params.quotient);
  }
  if (stores) {
    pages[codes + lane] = quantizeFour(x, operand, params.quotient);
  }
}
