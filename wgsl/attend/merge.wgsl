// Joins what decode.wgsl left of each row's cuts, in ascending order, and writes the result.
//
// out (totalQ, queryHeads, headDim), lse (totalQ, queryHeads): f32, written as bits.

@group(0) @binding(3) var<storage, read> partials: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> sinks: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<u32>;

@compute @workgroup_size(WORKGROUP)
fn merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let index = linearIndex(group, groups);
  if (index >= params.blocks * ROWS) { return; }
  let block = blockOf(params.firstBlock + index / ROWS);
  let row = index % ROWS;
  if (row >= block.rows) { return; }
  let firstCut = visibleToSome(block).x / i32(CUT_KEYS);
  let visible = visibleKeys(block, row);
  var firstPartial = 0u;
  var end = 0u;
  if (visible.x < visible.y) {
    firstPartial = u32(visible.x / i32(CUT_KEYS) - firstCut);
    end = u32((visible.y - 1) / i32(CUT_KEYS) + 1 - firstCut);
  }
  let stride = ROWS * (1u + QUADS);
  let partial = (index / ROWS) * params.cuts * stride + row * (1u + QUADS);

  var largest = NOTHING;
  for (var cut = firstPartial; cut < end; cut++) { largest = max(largest, bitcast<i32>(partials[partial + cut * stride].x)); }
  let nothingSeen = largest == NOTHING;
  let sink = sinkOf(queryHead(block, row));
  let most = max(largest, sink.order);
  let base = baseOf(most);
  var sum = weightOf(sink.order, base);
  var values = vec4<f32>();
  for (var cut = firstPartial; cut < end; cut++) {
    let head = partials[partial + cut * stride];
    let weight = weightOf(bitcast<i32>(head.x), base);
    sum += bitcast<f32>(head.y) * weight;
    if (lane < QUADS) { values += bitcast<vec4<f32>>(partials[partial + cut * stride + 1u + lane]) * weight; }
  }
  let at = headRow(block, row);
  if (lane < QUADS) { out[at * QUADS + lane] = outBits(most, nothingSeen, sum, values); }
  if (lane == 0u) { lse[at] = lseBits(most, nothingSeen, sum, sink.bits); }
}
