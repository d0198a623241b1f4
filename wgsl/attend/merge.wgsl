// Joins what decode.wgsl left of each row's cuts, and writes the result: one workgroup for each row.
//
// out (totalQ, queryHeads, headDim) f32 or f16, lse (totalQ, queryHeads) f32: written as bits.
//
// Cuts are counted from the first that the row sees. STREAMS of QUADS invocations add up every so many of them, in
// ascending order, and then their sums are added up, in ascending order.

@group(0) @binding(3) var<storage, read> partials: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> extras: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<u32>;

const STREAMS: u32 = WORKGROUP / QUADS;
// Loads that go ahead of sums.
const AHEAD: u32 = 4u;
const AT_ONCE: u32 = STREAMS * AHEAD;
// Cuts that are weighed at a time.
const TILE: u32 = AT_ONCE * max(1u, WORKGROUP / AT_ONCE);

// What a cut's values and its sum of weights are multiplied by, and that product with the sum.
var<workgroup> weights: array<vec2<f32>, TILE>;
var<workgroup> parts: array<vec4<f32>, WORKGROUP>;
var<workgroup> partSums: array<f32, STREAMS>;
var<workgroup> largestCut: atomic<i32>;

@compute @workgroup_size(WORKGROUP)
fn merge(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let index = linearIndex(group, groups);
  if (index >= params.blocks * ROWS) { return; }
  let block = blockOf(params.firstBlock + index / ROWS);
  let row = index % ROWS;
  if (row >= block.rows) { return; }
  let visible = visibleKeys(block, row);
  let stride = ROWS * (1u + QUADS);
  var partial = index / ROWS * params.cuts * stride + row * (1u + QUADS);
  var cuts = 0u;
  if (visible.x < visible.y) {
    let first = visible.x / i32(CUT_KEYS);
    partial += u32(first - visibleToSome(block).x / i32(CUT_KEYS)) * stride;
    cuts = u32((visible.y - 1) / i32(CUT_KEYS) + 1 - first);
  }

  if (lane == 0u) { atomicStore(&largestCut, NOTHING); }
  workgroupBarrier();
  var own = NOTHING;
  for (var cut = lane; cut < cuts; cut += WORKGROUP) { own = max(own, bitcast<i32>(partials[partial + cut * stride].x)); }
  atomicMax(&largestCut, own);
  workgroupBarrier();
  let largest = atomicLoad(&largestCut);
  let nothingSeen = largest == NOTHING;
  let sink = sinkOf(queryHead(block, row));
  let most = max(largest, sink.order);
  let base = baseOf(most);

  let stream = lane / QUADS;
  let quad = lane % QUADS;
  var sum = 0.0;
  var values = vec4<f32>();
  for (var first = 0u; first < cuts; first += TILE) {
    let count = min(TILE, cuts - first);
    workgroupBarrier();
    for (var i = lane; i < count; i += WORKGROUP) {
      let head = partials[partial + (first + i) * stride];
      let weight = weightOf(bitcast<i32>(head.x), base);
      weights[i] = vec2<f32>(weight, bitcast<f32>(head.y) * weight);
    }
    workgroupBarrier();
    // Invocations beyond the streams take part in barriers only.
    for (var ahead = select(count, stream, stream < STREAMS); ahead < count; ahead += AT_ONCE) {
      var words = array<vec4<u32>, AHEAD>();
      for (var n = 0u; n < AHEAD; n++) { words[n] = partials[partial + (first + min(ahead + n * STREAMS, count - 1u)) * stride + 1u + quad]; }
      for (var n = 0u; n < AHEAD; n++) {
        let cut = ahead + n * STREAMS;
        if (cut < count) {
          values += bitcast<vec4<f32>>(words[n]) * weights[cut].x;
          sum += weights[cut].y;
        }
      }
    }
  }
  if (stream < STREAMS) {
    parts[lane] = values;
    if (quad == 0u) { partSums[stream] = sum; }
  }
  workgroupBarrier();
  if (lane >= QUADS) { return; }
  var total = vec4<f32>();
  var totalSum = weightOf(sink.order, base);
  for (var s = 0u; s < STREAMS; s++) {
    total += parts[s * QUADS + lane];
    totalSum += partSums[s];
  }
  let at = headRow(block, row);
  storeOut(at * QUADS + lane, outBits(block, lane, most, nothingSeen, totalSum, total));
  if (lane == 0u) { lse[at] = lseBits(most, nothingSeen, totalSum, sink.bits); }
}
