// As reduce.wgsl, with subgroups: each reduces by itself, and its first invocation hands on what it has.
// Invocations lie in subgroups in the order of their index, which has been tried on the device. How many make one is asked
// here: a device with several sizes chooses one for each kernel, and need not choose the same for one that tries.

fn largestOfAll(lane: u32, own: RowOrders) -> RowOrders {
  var largest = own;
  let size = subgroupAdd(1u);
  for (var i = 0u; i < ROW_QUADS; i++) {
    let part = subgroupMax(own[i]);
    if (lane % size == 0u) { memory[i * WORKGROUP + lane / size] = bitcast<vec4<u32>>(part); }
  }
  workgroupBarrier();
  for (var i = 0u; i < ROW_QUADS; i++) {
    for (var part = 0u; part < WORKGROUP / size; part++) {
      largest[i] = max(largest[i], bitcast<vec4<i32>>(memory[i * WORKGROUP + part]));
    }
  }
  return largest;
}

fn sumOfAll(lane: u32, own: RowQuads) -> RowQuads {
  var sums = RowQuads();
  let size = subgroupAdd(1u);
  for (var i = 0u; i < ROW_QUADS; i++) {
    let part = subgroupAdd(own[i]);
    if (lane % size == 0u) { memory[i * WORKGROUP + lane / size] = bitcast<vec4<u32>>(part); }
  }
  workgroupBarrier();
  for (var i = 0u; i < ROW_QUADS; i++) {
    for (var part = 0u; part < WORKGROUP / size; part++) { sums[i] += bitcast<vec4<f32>>(memory[i * WORKGROUP + part]); }
  }
  return sums;
}
