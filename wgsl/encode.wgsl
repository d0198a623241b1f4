// Values as f32 bit patterns → codes, four to a word, the first lowest. Exact. For checking a device's encode against
// the CPU's: over all 2^32 patterns, which need not be sent to it, or over given ones.
//
// Before it go: WORKGROUP, and one format's encode as `encodeCode`.

struct EncodeParams {
  // The first invocation's first bit pattern.
  first: u32,
  // Words of codes to write.
  count: u32,
}

@group(0) @binding(0) var<uniform> params: EncodeParams;
// codes: (count)
@group(0) @binding(1) var<storage, read_write> codes: array<u32>;
// bits: (4 · count)
@group(0) @binding(2) var<storage, read> bits: array<u32>;

fn encodeFour(x: vec4<u32>) -> u32 {
  return encodeCode(x.x) | (encodeCode(x.y) << 8u) | (encodeCode(x.z) << 16u) | (encodeCode(x.w) << 24u);
}

// Workgroups are spread over x and y, since each may count to 65535 only.
fn wordIndex(group: vec3<u32>, groups: vec3<u32>, invocation: u32) -> u32 {
  return (group.x + group.y * groups.x) * WORKGROUP + invocation;
}

// codes[i] ← the patterns first + 4i … first + 4i + 3
@compute @workgroup_size(WORKGROUP)
fn encode(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let i = wordIndex(group, groups, invocation);
  if (i < params.count) {
    codes[i] = encodeFour(params.first + 4u * i + vec4<u32>(0u, 1u, 2u, 3u));
  }
}

// codes[i] ← bits[4i] … bits[4i + 3]
@compute @workgroup_size(WORKGROUP)
fn encodeValues(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let i = wordIndex(group, groups, invocation);
  if (i < params.count) {
    codes[i] = encodeFour(vec4<u32>(bits[4u * i], bits[4u * i + 1u], bits[4u * i + 2u], bits[4u * i + 3u]));
  }
}
