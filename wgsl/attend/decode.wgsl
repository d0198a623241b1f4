// Attention of few rows: one workgroup takes a block of rows over one cut of the keys, and leaves a partial result.
//
// partials (blocks of the pass, cuts, ROWS, 1 + QUADS) of 16 bytes: the largest score, as softmax.wgsl orders it, and the sum
// of weights; then the sums of weight · V scale · value. merge.wgsl joins them.
//
// Each invocation takes KEYS_EACH keys and multiplies them with all rows; then 4 dims of every so many values. Cuts lie at
// fixed keys and sums go in a fixed order: a row's bits depend on nothing but its own keys.

@group(0) @binding(6) var<storage, read_write> partials: array<vec4<u32>>;

const KEYS_EACH: u32 = CUT_KEYS / WORKGROUP;
// Rows, in fours.
const ROW_QUADS: u32 = (ROWS + 3u) / 4u;
// Invocations that share a value, and values that are added up at a time.
const LANES: u32 = QUADS;
const STREAMS: u32 = WORKGROUP / LANES;

// Queries; then what is reduced; then the weights of each key, ROW_QUADS of them; then value sums.
const QUERY_QUADS: u32 = ROWS * QUADS;
const WEIGHT_QUADS: u32 = CUT_KEYS * ROW_QUADS;
var<workgroup> memory: array<vec4<u32>, max(QUERY_QUADS, WEIGHT_QUADS)>;
// What undoes the power of two that each row of q was multiplied by, times the scale of all scores.
var<workgroup> factors: array<f32, ROWS>;
// First unit of each key's value, or ABSENT.
var<workgroup> valueRows: array<u32, CUT_KEYS>;

alias RowQuads = array<vec4<f32>, ROW_QUADS>;
alias RowOrders = array<vec4<i32>, ROW_QUADS>;

fn loadQueries(block: Block, lane: u32) {
  // Rows that are not there are left as they are: nobody sees what comes of them.
  for (var i = lane; i < QUERY_QUADS; i += WORKGROUP) {
    if (i / QUADS < block.rows) { memory[i] = queryQuad(headRow(block, i / QUADS), i % QUADS); }
  }
  workgroupBarrier();
  if (lane < block.rows) {
    var largest = 0u;
    for (var i = 0u; i < QUADS; i++) { largest = max(largest, largestOf(memory[lane * QUADS + i])); }
    let powers = powersOf(largest);
    factors[lane] = powers.y * params.scoreScale;
    for (var i = 0u; i < QUADS; i++) {
      storeQuery(lane * QUADS + i, bitcast<vec4<f32>>(memory[lane * QUADS + i]) * powers.x);
    }
  }
  workgroupBarrier();
}

// Products of one key with all rows, or NaN where the key holds a code that is.
fn scoresOf(row: u32) -> array<f32, ROWS> {
  var sums = array<f32, ROWS>();
  var special = 0u;
  for (var unit = 0u; unit < K_UNITS; unit++) {
    let words = pages[row + unit];
    special |= nanKey(words);
    var key = decodeKey(words);
    for (var i = 0u; i < K_UNIT_QUADS; i++) {
      let quad = unit * K_UNIT_QUADS + i;
      // The last unit of a row may be padding in part.
      if (QUADS % K_UNIT_QUADS != 0u && quad >= QUADS) { break; }
      for (var r = 0u; r < ROWS; r++) {
        sums[r] += productOf(r * QUADS + quad, key[i]);
      }
    }
  }
  if (special != 0u) {
    for (var r = 0u; r < ROWS; r++) { sums[r] = bitcast<f32>(params.nan); }
  }
  return sums;
}

@compute @workgroup_size(WORKGROUP)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let index = linearIndex(group, groups);
  if (index >= params.blocks * params.cuts) { return; }
  let block = blockOf(params.firstBlock + index / params.cuts);
  if (block.rows == 0u) { return; }
  let seen = visibleToSome(block);
  let first = (u32(seen.x) / CUT_KEYS + index % params.cuts) * CUT_KEYS;
  if (i32(first) >= seen.y) { return; }
  loadQueries(block, lane);

  // Scores.
  var orders = array<RowOrders, KEYS_EACH>();
  var vScales = array<f32, KEYS_EACH>();
  for (var n = 0u; n < KEYS_EACH; n++) {
    let key = first + n * WORKGROUP + lane;
    var page = ABSENT;
    if (i32(key) >= seen.x && i32(key) < seen.y) { page = pageOf(block.sequence, key); }
    var row = ABSENT;
    for (var i = 0u; i < ROW_QUADS; i++) { orders[n][i] = vec4<i32>(NOTHING); }
    if (page != ABSENT) {
      row = valueRow(page, block.kvHead, key);
      vScales[n] = valueScale(page, block.kvHead, key) * V_UNIT;
      let scale = keyScale(page, block.kvHead, key) * (K_UNIT / Q_UNIT);
      let sums = scoresOf(keyRow(page, block.kvHead, key));
      for (var r = 0u; r < ROWS; r++) {
        let visible = visibleKeys(block, r);
        let order = orderOf(capped(sums[r] * scale * factors[r]));
        orders[n][r / 4u][r % 4u] = select(NOTHING, order, i32(key) >= visible.x && i32(key) < visible.y);
      }
    }
    valueRows[n * WORKGROUP + lane] = row;
  }

  // The largest of each row.
  var largest = orders[0];
  for (var n = 1u; n < KEYS_EACH; n++) {
    for (var i = 0u; i < ROW_QUADS; i++) { largest[i] = max(largest[i], orders[n][i]); }
  }
  workgroupBarrier();
  largest = largestOfAll(lane, largest);

  // Weights.
  var sums = RowQuads();
  workgroupBarrier();
  for (var n = 0u; n < KEYS_EACH; n++) {
    for (var i = 0u; i < ROW_QUADS; i++) {
      var weights = vec4<u32>();
      for (var r = 0u; r < 4u; r++) {
        let order = orders[n][i][r];
        let weight = weightOf(order, baseOf(largest[i][r]));
        sums[i][r] += weight;
        weights[r] = select(bitcast<u32>(weight * vScales[n]), MASKED, order == NOTHING);
      }
      memory[(n * WORKGROUP + lane) * ROW_QUADS + i] = weights;
    }
  }
  workgroupBarrier();

  // Values.
  var values = array<vec4<f32>, ROW_QUADS * 4u>();
  let stream = lane / LANES;
  let quad = lane % LANES;
  if (stream < STREAMS) {
    let begin = max(seen.x, i32(first)) - i32(first);
    let end = u32(min(seen.y, i32(first + CUT_KEYS)) - i32(first));
    for (var key = u32(begin) / STREAMS * STREAMS + stream; key < end; key += STREAMS) {
      let row = valueRows[key];
      if (row == ABSENT) { continue; }
      let value = valueQuad(row, quad);
      for (var i = 0u; i < ROW_QUADS; i++) {
        let weights = memory[key * ROW_QUADS + i];
        for (var r = 0u; r < 4u; r++) {
          if (4u * i + r >= ROWS) { break; }
          let product = bitcast<f32>(weights[r]) * value.quad;
          values[4u * i + r] += select(product, vec4<f32>(), value.special && weights[r] == MASKED);
        }
      }
    }
  }
  workgroupBarrier();
  sums = sumOfAll(lane, sums);

  let partial = index * ROWS * (1u + QUADS);
  for (var r = 0u; r < ROWS; r++) {
    workgroupBarrier();
    memory[lane] = bitcast<vec4<u32>>(values[r]);
    workgroupBarrier();
    if (stream == 0u && r < block.rows) {
      var total = vec4<f32>();
      for (var s = 0u; s < STREAMS; s++) { total += bitcast<vec4<f32>>(memory[s * LANES + quad]); }
      partials[partial + r * (1u + QUADS) + 1u + quad] = bitcast<vec4<u32>>(total);
      if (quad == 0u) {
        partials[partial + r * (1u + QUADS)] = vec4<u32>(bitcast<u32>(largest[r / 4u][r % 4u]), bitcast<u32>(sums[r / 4u][r % 4u]), 0u, 0u);
      }
    }
  }
}
