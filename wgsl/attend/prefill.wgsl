// Attention of many rows: one workgroup takes a block of 32 rows over all their keys, in tiles of 32, with online softmax.
//
// Tiles lie at fixed keys; one that no row of the block sees is skipped, and one that some rows do not see leaves those
// rows' bits as they are. 8 × 8 invocations: each has 4 rows, and 4 keys of a tile or 4 dims of every 32.
// K and V are decoded once per tile, 32 dims at a time, and lie in workgroup memory so that 4 rows, keys or dims are one load.

@group(0) @binding(6) var<storage, read_write> out: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> lse: array<u32>;
@group(0) @binding(8) var<storage, read> sinks: array<u32>;

const TILE: u32 = 32u;
// Quads of a tile's rows, keys, or dims taken at a time.
const SIDE: u32 = 8u;
const CHUNKS: u32 = (QUADS + SIDE - 1u) / SIDE;

// (dim, row), and (dim, key) or (key, dim): TILE × SIDE quads each.
var<workgroup> queries: array<vec4<f32>, TILE * SIDE>;
var<workgroup> tile: array<vec4<f32>, TILE * SIDE>;
// Weights as (key, row).
var<workgroup> weights: array<vec4<u32>, TILE * SIDE>;
// What each row has of its largest score, by who computed it.
var<workgroup> partOrders: array<i32, TILE * SIDE>;
var<workgroup> partSums: array<f32, TILE * SIDE>;
// What q is multiplied by, and what undoes it, times the scale of all scores.
var<workgroup> rowPowers: array<vec2<f32>, TILE>;
// Page, K scale and V scale of each key of the tile.
var<workgroup> keyPages: array<u32, TILE>;
var<workgroup> keyScales: array<f32, TILE>;
var<workgroup> valueScales: array<f32, TILE>;
// Not 0 where a value of the tile is no finite number, or a key's product is to be NaN.
var<workgroup> specialValues: atomic<u32>;
var<workgroup> nanKeys: array<atomic<u32>, TILE>;

fn measureRows(block: Block, lane: u32) {
  // Two invocations for each row.
  let row = lane / 2u;
  var largest = 0u;
  if (row < block.rows) {
    let at = headRow(block, row);
    for (var quad = lane % 2u; quad < QUADS; quad += 2u) { largest = max(largest, largestOf(queryQuad(at, quad))); }
  }
  partOrders[lane] = bitcast<i32>(largest);
  workgroupBarrier();
  if (lane < TILE) {
    let powers = powersOf(max(bitcast<u32>(partOrders[2u * lane]), bitcast<u32>(partOrders[2u * lane + 1u])));
    rowPowers[lane] = vec2<f32>(powers.x, powers.y * params.scoreScale);
  }
  workgroupBarrier();
}

fn loadTile(block: Block, seen: vec2<i32>, first: i32, lane: u32) {
  if (lane < TILE) {
    let key = first + i32(lane);
    var page = ABSENT;
    if (key >= seen.x && key < seen.y) { page = pageOf(block.sequence, u32(key)); }
    keyPages[lane] = page;
    if (page != ABSENT) {
      keyScales[lane] = keyScale(page, block.kvHead, u32(key)) * K_UNIT;
      valueScales[lane] = valueScale(page, block.kvHead, u32(key)) * V_UNIT;
    }
    atomicStore(&nanKeys[lane], 0u);
  }
  if (lane == 0u) { atomicStore(&specialValues, 0u); }
  workgroupBarrier();
}

// 4 rows × 4 dims of q, as 4 dims × 4 rows.
fn loadQueries(block: Block, chunk: u32, lane: u32) {
  let rows = lane / SIDE;
  let quad = chunk * SIDE + lane % SIDE;
  var x = array<vec4<f32>, 4>();
  for (var i = 0u; i < 4u; i++) {
    let row = 4u * rows + i;
    if (row < block.rows && quad < QUADS) { x[i] = bitcast<vec4<f32>>(queryQuad(headRow(block, row), quad)) * rowPowers[row].x; }
  }
  for (var d = 0u; d < 4u; d++) {
    queries[(4u * (lane % SIDE) + d) * SIDE + rows] = vec4<f32>(x[0][d], x[1][d], x[2][d], x[3][d]);
  }
}

// 4 keys × 4 dims, as 4 dims × 4 keys.
fn loadKeys(block: Block, first: i32, chunk: u32, lane: u32) {
  let keys = lane / SIDE;
  let quad = chunk * SIDE + lane % SIDE;
  var x = array<vec4<f32>, 4>();
  for (var i = 0u; i < 4u; i++) {
    let key = 4u * keys + i;
    if (keyPages[key] != ABSENT && quad < QUADS) {
      let loaded = keyQuad(keyRow(keyPages[key], block.kvHead, u32(first) + key), quad);
      x[i] = loaded.quad;
      if (loaded.special) { atomicOr(&nanKeys[key], 1u); }
    }
  }
  for (var d = 0u; d < 4u; d++) {
    tile[(4u * (lane % SIDE) + d) * SIDE + keys] = vec4<f32>(x[0][d], x[1][d], x[2][d], x[3][d]);
  }
}

fn loadValues(block: Block, first: i32, chunk: u32, lane: u32) {
  let quad = chunk * SIDE + lane % SIDE;
  for (var key = lane / SIDE; key < TILE; key += SIDE) {
    var value = vec4<f32>();
    if (keyPages[key] != ABSENT && quad < QUADS) {
      let loaded = valueQuad(valueRow(keyPages[key], block.kvHead, u32(first) + key), quad);
      value = loaded.quad;
      if (loaded.special) { atomicOr(&specialValues, 1u); }
    }
    tile[key * SIDE + lane % SIDE] = value;
  }
}

@compute @workgroup_size(64)
fn prefill(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let index = linearIndex(group, groups);
  if (index >= params.blocks) { return; }
  let block = blockOf(params.firstBlock + index);
  if (block.rows == 0u) { return; }
  let seen = visibleToSome(block);
  measureRows(block, lane);
  let rows = lane / SIDE;
  let column = lane % SIDE;
  var visible = array<vec2<i32>, 4>();
  var factors = vec4<f32>();
  for (var i = 0u; i < 4u; i++) {
    visible[i] = visibleKeys(block, 4u * rows + i);
    factors[i] = rowPowers[4u * rows + i].y;
  }
  var largest = vec4<i32>(NOTHING);
  var sums = vec4<f32>();
  var values = array<vec4<f32>, 4u * CHUNKS>();

  for (var first = seen.x / i32(TILE) * i32(TILE); first < seen.y; first += i32(TILE)) {
    loadTile(block, seen, first, lane);
    var scores = array<vec4<f32>, 4>();
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      loadQueries(block, chunk, lane);
      loadKeys(block, first, chunk, lane);
      workgroupBarrier();
      for (var d = 0u; d < TILE; d++) {
        let x = queries[d * SIDE + rows];
        let key = tile[d * SIDE + column];
        scores[0] += x.x * key;
        scores[1] += x.y * key;
        scores[2] += x.z * key;
        scores[3] += x.w * key;
      }
      workgroupBarrier();
    }

    // Scores in their order, and the largest of each row.
    var orders = array<vec4<i32>, 4>();
    for (var i = 0u; i < 4u; i++) {
      for (var n = 0u; n < 4u; n++) {
        let at = 4u * column + n;
        let key = first + i32(at);
        var order = orderOf(capped(scores[i][n] * keyScales[at] * factors[i]));
        if (atomicLoad(&nanKeys[at]) != 0u) { order = NAN_ORDER; }
        orders[i][n] = select(NOTHING, order, key >= visible[i].x && key < visible[i].y && keyPages[at] != ABSENT);
      }
      partOrders[(4u * rows + i) * SIDE + column] = max(max(orders[i].x, orders[i].y), max(orders[i].z, orders[i].w));
    }
    workgroupBarrier();
    var rescale = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
      var most = largest[i];
      for (var part = 0u; part < SIDE; part++) { most = max(most, partOrders[(4u * rows + i) * SIDE + part]); }
      // Exactly 1 where nothing larger came, so that a tile that the row does not see changes nothing.
      rescale[i] = select(weightOf(largest[i], baseOf(most)), 1.0, most == largest[i]);
      largest[i] = most;
    }

    // What a tile adds is summed up by itself first: one sum of tens of thousands of terms alike loses four digits.
    var added = vec4<f32>();
    for (var n = 0u; n < 4u; n++) {
      var column4 = vec4<u32>();
      for (var i = 0u; i < 4u; i++) {
        let weight = weightOf(orders[i][n], baseOf(largest[i]));
        added[i] += weight;
        column4[i] = select(bitcast<u32>(weight * valueScales[4u * column + n]), MASKED, orders[i][n] == NOTHING);
      }
      weights[(4u * column + n) * SIDE + rows] = column4;
    }
    sums = sums * rescale + added;

    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      loadValues(block, first, chunk, lane);
      workgroupBarrier();
      let special = atomicLoad(&specialValues) != 0u;
      var products = array<vec4<f32>, 4>();
      for (var key = 0u; key < TILE; key++) {
        let weight = weights[key * SIDE + rows];
        let value = tile[key * SIDE + column];
        if (special) {
          for (var i = 0u; i < 4u; i++) {
            if (weight[i] != MASKED) { products[i] += bitcast<f32>(weight[i]) * value; }
          }
        } else {
          for (var i = 0u; i < 4u; i++) { products[i] += bitcast<f32>(weight[i]) * value; }
        }
      }
      for (var i = 0u; i < 4u; i++) { values[4u * chunk + i] = values[4u * chunk + i] * rescale[i] + products[i]; }
      workgroupBarrier();
    }
  }

  for (var i = 0u; i < 4u; i++) { partSums[(4u * rows + i) * SIDE + column] = sums[i]; }
  workgroupBarrier();
  for (var i = 0u; i < 4u; i++) {
    let row = 4u * rows + i;
    if (row >= block.rows) { continue; }
    let nothingSeen = largest[i] == NOTHING;
    let sink = sinkOf(queryHead(block, row));
    let most = max(largest[i], sink.order);
    let own = weightOf(largest[i], baseOf(most));
    var sum = 0.0;
    for (var part = 0u; part < SIDE; part++) { sum += partSums[row * SIDE + part]; }
    sum = sum * own + weightOf(sink.order, baseOf(most));
    let at = headRow(block, row);
    for (var chunk = 0u; chunk < CHUNKS; chunk++) {
      let quad = chunk * SIDE + column;
      if (quad < QUADS) { out[at * QUADS + quad] = outBits(most, nothingSeen, sum, values[4u * chunk + i] * own); }
    }
    if (column == 0u) { lse[at] = lseBits(most, nothingSeen, sum, sink.bits); }
  }
}
