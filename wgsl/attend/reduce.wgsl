// Over all invocations of a workgroup: the largest, and the sum, in an order that is always the same.

fn largestOfAll(lane: u32, own: RowOrders) -> RowOrders {
  var largest = own;
  for (var i = 0u; i < ROW_QUADS; i++) { memory[i * WORKGROUP + lane] = bitcast<vec4<u32>>(own[i]); }
  for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (lane < step) {
      for (var i = 0u; i < ROW_QUADS; i++) {
        let at = i * WORKGROUP + lane;
        memory[at] = bitcast<vec4<u32>>(max(bitcast<vec4<i32>>(memory[at]), bitcast<vec4<i32>>(memory[at + step])));
      }
    }
  }
  workgroupBarrier();
  for (var i = 0u; i < ROW_QUADS; i++) { largest[i] = bitcast<vec4<i32>>(memory[i * WORKGROUP]); }
  return largest;
}

fn sumOfAll(lane: u32, own: RowQuads) -> RowQuads {
  var sums = own;
  for (var i = 0u; i < ROW_QUADS; i++) { memory[i * WORKGROUP + lane] = bitcast<vec4<u32>>(own[i]); }
  for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (lane < step) {
      for (var i = 0u; i < ROW_QUADS; i++) {
        let at = i * WORKGROUP + lane;
        memory[at] = bitcast<vec4<u32>>(bitcast<vec4<f32>>(memory[at]) + bitcast<vec4<f32>>(memory[at + step]));
      }
    }
  }
  workgroupBarrier();
  for (var i = 0u; i < ROW_QUADS; i++) { sums[i] = bitcast<vec4<f32>>(memory[i * WORKGROUP]); }
  return sums;
}
