struct AppendParams {
  tokens: u32,
  // pages · BLOCK_SIZE
  slots: u32,
  quotient: u32,
  givenScale: u32,
  amaxFloor: u32,
  scaleFloor: u32,
  scaleIfZero: u32,
  formatMax: u32,
}

@group(0) @binding(0) var<uniform> params: AppendParams;
@group(0) @binding(1) var<storage, read> values: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> slotMapping: array<i32>;
@group(0) @binding(3) var<storage, read_write> pages: array<u32>;
@group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>>;

const ROWS: u32 = WORKGROUP / LANES;

var<workgroup> largest: array<atomic<u32>, ROWS>;
var<workgroup> scales: array<u32, ROWS>;
var<workgroup> operands: array<Operand, ROWS>;

const NOWHERE: i32 = -1;

fn slotOf(row: u32) -> i32 {
  let token = row / KV_HEADS;
  if (token >= params.tokens) {
    return NOWHERE;
  }
  let slot = slotMapping[token];
  if (slot >= 0 && u32(slot) >= params.slots) {
    atomicOr(&status[0], BAD_SLOT);
    return NOWHERE;
  }
  return slot;
}

fn widen(half: u32) -> u32 {
  if (INPUT == DTYPE_F16) {
    return widenF16(half);
  }
  return widenBF16(half);
}

fn loadFour(row: u32, lane: u32) -> vec4<u32> {
  if (INPUT == DTYPE_F32) {
    let at = row * (HEAD_DIM / 2u) + 2u * lane;
    return vec4<u32>(values[at], values[at + 1u]);
  }
  let halves = values[row * (HEAD_DIM / 4u) + lane];
  return vec4<u32>(widen(halves.x & 0xffffu), widen(halves.x >> 16u), widen(halves.y & 0xffffu), widen(halves.y >> 16u));
}

fn numberOrZero(x: u32) -> u32 {
  let magnitude = x & 0x7fffffffu;
  return select(magnitude, 0u, magnitude > INFINITY);
}

fn largestOfFour(x: vec4<u32>) -> u32 {
  return max(max(numberOrZero(x.x), numberOrZero(x.y)), max(numberOrZero(x.z), numberOrZero(x.w)));
}

fn measureRow(place: u32) {
  let divides = params.quotient == QUOTIENT_DIVIDE;
  if (COMPUTED_SCALE) {
    let recipe = Recipe(params.quotient, params.amaxFloor, params.scaleFloor, params.scaleIfZero, params.formatMax);
    let row = scaleOf(atomicLoad(&largest[place]), recipe);
    scales[place] = row.scale;
    operands[place] = prepare(row.operand, divides);
  } else if (divides) {
    operands[place] = prepare(params.givenScale, divides);
  } else {
    operands[place] = prepare(divideBits(ONE, params.givenScale), divides);
  }
}

fn quantizeFour(x: vec4<u32>, operand: Operand) -> u32 {
  if (params.quotient == QUOTIENT_DIVIDE) {
    return quotientCode(x.x, operand) | (quotientCode(x.y, operand) << 8u) | (quotientCode(x.z, operand) << 16u) | (quotientCode(x.w, operand) << 24u);
  }
  return productCode(x.x, operand) | (productCode(x.y, operand) << 8u) | (productCode(x.z, operand) << 16u) | (productCode(x.w, operand) << 24u);
}

@compute @workgroup_size(WORKGROUP)
fn append(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let place = invocation / LANES;
  let lane = invocation % LANES;
  let row = (group.x + group.y * groups.x) * ROWS + place;
  let slot = slotOf(row);
  let stores = slot != NOWHERE && 4u * lane < HEAD_DIM;
  var x = vec4<u32>();
  if (stores) {
    x = loadFour(row, lane);
  }
  let page = u32(slot) / BLOCK_SIZE * PAGE_WORDS;
  let token = u32(slot) % BLOCK_SIZE;
  let head = row % KV_HEADS;
  let codes = page + CODES + head * HEAD_STRIDE + token * TOKEN_STRIDE;
  if (OUTPUT == FORMAT_F32) {
    if (stores) {
      for (var i = 0u; i < 4u; i++) {
        pages[codes + 4u * lane + i] = x[i];
      }
    }
    return;
  }
  if (OUTPUT == FORMAT_F16) {
    if (stores) {
      pages[codes + 2u * lane] = narrowF16(x.x) | (narrowF16(x.y) << 16u);
      pages[codes + 2u * lane + 1u] = narrowF16(x.z) | (narrowF16(x.w) << 16u);
    }
    return;
  }
  if (COMPUTED_SCALE) {
    atomicMax(&largest[place], largestOfFour(x));
    workgroupBarrier();
  }
  if (invocation < ROWS) {
    measureRow(invocation);
  }
  workgroupBarrier();
  if (stores) {
    pages[codes + lane] = quantizeFour(x, operands[place]);
    if (COMPUTED_SCALE && lane == 0u) {
      pages[page + SCALES + head * SCALE_HEAD_STRIDE + token] = scales[place];
    }
  }
}
