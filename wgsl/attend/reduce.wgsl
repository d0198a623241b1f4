// Over all invocations of a workgroup, row by row: the largest, and the sum, of two neighbours, of four, and so on. As many as
// SUBGROUP do so by themselves: reduce-subgroups.wgsl, or reduce-plain.wgsl where each is alone.

fn joinLargest(lane: u32, step: u32) {
  workgroupBarrier();
  if (lane % (2u * step) != 0u) { return; }
  for (var at = lane; at < ROWS * WORKGROUP; at += WORKGROUP) {
    parts[at] = bitcast<u32>(max(bitcast<i32>(parts[at]), bitcast<i32>(parts[at + step])));
  }
}

fn joinSums(lane: u32, step: u32) {
  workgroupBarrier();
  if (lane % (2u * step) != 0u) { return; }
  for (var at = lane; at < ROWS * WORKGROUP; at += WORKGROUP) {
    parts[at] = bitcast<u32>(bitcast<f32>(parts[at]) + bitcast<f32>(parts[at + step]));
  }
}

fn largestOfAll(lane: u32, own: Orders) -> Orders {
  var largest = own;
  for (var r = 0u; r < ROWS; r++) { parts[r * WORKGROUP + lane] = bitcast<u32>(largestOfSubgroup(own[r])); }
  for (var step = SUBGROUP; step < WORKGROUP; step *= 2u) { joinLargest(lane, step); }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) { largest[r] = bitcast<i32>(parts[r * WORKGROUP]); }
  workgroupBarrier();
  return largest;
}

fn sumOfAll(lane: u32, own: Rows) -> Rows {
  var sums = own;
  for (var r = 0u; r < ROWS; r++) { parts[r * WORKGROUP + lane] = bitcast<u32>(sumOfSubgroup(own[r])); }
  for (var step = SUBGROUP; step < WORKGROUP; step *= 2u) { joinSums(lane, step); }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) { sums[r] = bitcast<f32>(parts[r * WORKGROUP]); }
  workgroupBarrier();
  return sums;
}
