// f32 bit patterns that follow each other → codes, four to a word, the first lowest. Exact. For checking a device's encode
// against the CPU's: none of the patterns has to be sent to it.
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

// codes[i] ← the patterns first + 4i … first + 4i + 3. Workgroups are spread over x and y, since each may count to 65535 only.
@compute @workgroup_size(WORKGROUP)
fn encode(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let i = (group.x + group.y * groups.x) * WORKGROUP + invocation;
  if (i < params.count) {
    let x = params.first + 4u * i;
    codes[i] = encodeCode(x) | (encodeCode(x + 1u) << 8u) | (encodeCode(x + 2u) << 16u) | (encodeCode(x + 3u) << 24u);
  }
}
