// Over all invocations of a workgroup, row by row: the largest, and the sum, in an order that is always the same.

fn largestOfAll(lane: u32, own: Orders) -> Orders {
  var largest = own;
  for (var r = 0u; r < ROWS; r++) { parts[r * WORKGROUP + lane] = bitcast<u32>(own[r]); }
  for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (lane < step) {
      for (var at = lane; at < ROWS * WORKGROUP; at += WORKGROUP) {
        parts[at] = bitcast<u32>(max(bitcast<i32>(parts[at]), bitcast<i32>(parts[at + step])));
      }
    }
  }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) { largest[r] = bitcast<i32>(parts[r * WORKGROUP]); }
  workgroupBarrier();
  return largest;
}

fn sumOfAll(lane: u32, own: Rows) -> Rows {
  var sums = own;
  for (var r = 0u; r < ROWS; r++) { parts[r * WORKGROUP + lane] = bitcast<u32>(own[r]); }
  for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (lane < step) {
      for (var at = lane; at < ROWS * WORKGROUP; at += WORKGROUP) {
        parts[at] = bitcast<u32>(bitcast<f32>(parts[at]) + bitcast<f32>(parts[at + step]));
      }
    }
  }
  workgroupBarrier();
  for (var r = 0u; r < ROWS; r++) { sums[r] = bitcast<f32>(parts[r * WORKGROUP]); }
  workgroupBarrier();
  return sums;
}
