// Tables that lie in GPU buffers are looked through before prefill, which has no binding left for the status word. The kernels
// leave out the same entries.

@group(0) @binding(3) var<storage, read> blockTable: array<i32>;
@group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>>;

@compute @workgroup_size(WORKGROUP)
fn check(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let sequence = linearIndex(group, groups);
  if (sequence >= params.sequences) { return; }
  let source = sequenceOf(sequence);
  if (lengthsDiffer(sequence, source)) { atomicOr(&status[0], BAD_LENGTH); }
  if (source.rows == 0) { return; }
  // Pages before the first row's window need not be there.
  let firstKey = select(0, max(0, source.position - params.windowLeft), params.windowLeft >= 0);
  let end = (u32(source.keys) + params.blockSize - 1u) / params.blockSize;
  for (var block = u32(firstKey) / params.blockSize + lane; block < end; block += WORKGROUP) {
    if (u32(blockTable[sequence * params.maxBlocks + block]) >= params.pageCount) { atomicOr(&status[0], BAD_PAGE); }
  }
}
