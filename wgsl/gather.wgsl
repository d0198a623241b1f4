// New tokens out of a tensor whose heads come before its tokens → rows as append takes them. Bits are moved, never changed.
//
// Before it goes WORKGROUP. GatherParams is `gpuGatherParams` of src/layout.ts. A unit is 16 bytes: 4 f32, or 8 f16.

@group(0) @binding(0) var<uniform> params: GatherParams;
// tokens: (count), each one's row of its first head in the tensor
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
// tensor: (batch, kvHeads, positions, units)
@group(0) @binding(2) var<storage, read> tensor: array<vec4<u32>>;
// rows: (count, kvHeads, units)
@group(0) @binding(3) var<storage, read_write> rows: array<vec4<u32>>;

// An invocation moves a unit. Workgroups are spread over x and y, since each may count to 65535 only.
@compute @workgroup_size(WORKGROUP)
fn gather(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let i = (group.x + group.y * groups.x) * WORKGROUP + invocation;
  let row = i / params.units;
  let token = row / params.kvHeads;
  if (token < params.count) {
    rows[i] = tensor[(tokens[token] + row % params.kvHeads * params.positions) * params.units + i % params.units];
  }
}
