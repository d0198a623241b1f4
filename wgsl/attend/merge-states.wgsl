// Attention over two parts of the keys, joined, as src/merge-states.ts does it: rows of any call, QUADS of 4 dims each.
//
// outA, outB, out (rows, quads) of 4 f32, lseA, lseB, lse (rows): all as bits. Infinities and NaN are told by their bits.

struct MergeStatesParams {
  rows: u32,
  quads: u32,
}

@group(0) @binding(0) var<uniform> params: MergeStatesParams;
@group(0) @binding(1) var<storage, read> outA: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> lseA: array<u32>;
@group(0) @binding(3) var<storage, read> outB: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> lseB: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<u32>;

const NAN_BITS: u32 = 0x7fc00000u;
const MINUS_INFINITY_BITS: u32 = 0xff800000u;

// NaN, or +infinity: no sum of weights has such a logarithm unless what was seen is broken.
fn isBroken(bits: u32) -> bool {
  return bits != MINUS_INFINITY_BITS && (bits & 0x7fffffffu) >= 0x7f800000u;
}

// Workgroups are spread over x and y, since each may count to 65535 only.
@compute @workgroup_size(WORKGROUP)
fn mergeStates(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let i = (group.x + group.y * groups.x) * WORKGROUP + invocation;
  if (i >= params.rows * params.quads) {
    return;
  }
  let row = i / params.quads;
  let a = lseA[row];
  let b = lseB[row];
  var quad = vec4<u32>(NAN_BITS);
  var joined = NAN_BITS;
  if (a == MINUS_INFINITY_BITS) {
    quad = outB[i];
    joined = b;
  } else if (b == MINUS_INFINITY_BITS) {
    quad = outA[i];
    joined = a;
  } else if (!isBroken(a) && !isBroken(b)) {
    let most = max(bitcast<f32>(a), bitcast<f32>(b));
    let weightA = exp2((bitcast<f32>(a) - most) * LOG2_E);
    let weightB = exp2((bitcast<f32>(b) - most) * LOG2_E);
    let sum = weightA + weightB;
    quad = bitcast<vec4<u32>>(bitcast<vec4<f32>>(outA[i]) * (weightA / sum) + bitcast<vec4<f32>>(outB[i]) * (weightB / sum));
    joined = bitcast<u32>(most + log2(sum) * LN_2);
  }
  out[i] = quad;
  if (i % params.quads == 0u) {
    lse[row] = joined;
  }
}
