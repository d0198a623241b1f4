// As reduce.wgsl, with subgroups: each reduces by itself, and its first invocation hands on what it has.
// Invocations lie in subgroups in the order of their index, which has been tried on the device. How many make one is asked
// here: a device with several sizes chooses one for each kernel, and need not choose the same for one that tries.

fn largestOfAll(lane: u32, own: Orders) -> Orders {
  var largest = own;
  let size = subgroupAdd(1u);
  for (var r = 0u; r < ROWS; r++) {
    let part = subgroupMax(own[r]);
    if (lane % size == 0u) { parts[r * WORKGROUP + lane / size] = bitcast<u32>(part); }
  }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) {
    for (var part = 0u; part < WORKGROUP / size; part++) { largest[r] = max(largest[r], bitcast<i32>(parts[r * WORKGROUP + part])); }
  }
  workgroupBarrier();
  return largest;
}

fn sumOfAll(lane: u32, own: Rows) -> Rows {
  var sums = Rows();
  let size = subgroupAdd(1u);
  for (var r = 0u; r < ROWS; r++) {
    let part = subgroupAdd(own[r]);
    if (lane % size == 0u) { parts[r * WORKGROUP + lane / size] = bitcast<u32>(part); }
  }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) {
    for (var part = 0u; part < WORKGROUP / size; part++) { sums[r] += bitcast<f32>(parts[r * WORKGROUP + part]); }
  }
  workgroupBarrier();
  return sums;
}
