// Attention of many rows: one workgroup takes a block of ROWS rows over all their keys, in tiles of 64, with online softmax.
//
// Tiles lie at fixed keys; one that no row of the block sees is skipped, and one that some rows do not see leaves those
// rows' bits as they are. 16 columns of invocations each have ROWS_EACH rows: there 4 keys of a tile, 16 apart, and 4 dims of
// every 64. What a row gets depends neither on ROWS nor on ROWS_EACH: each sum goes in the order of dims or keys.
//
// K and V are decoded once per tile. Workgroup memory is read 16 bytes at a time, by neighbours from neighbouring places:
// 3 reads for the 32 products of 8 rows with 4 keys, or 4 dims. Sums are written as fma, so that no compiler joins a product
// to another sum in one of the loops than in the other. Within 1e-4 of exact attention,
// unless prefill-products-f16.wgsl says otherwise.
//
// Tried on SwiftShader (2026-11-21, all others not yet): 64 invocations with 4 rows and 4 keys each, which read 2 times for 16
// products, take 1.1 to 1.6 times as long; sums that loops go through, where prefill-rows-8.wgsl gives each a name, 1.7 times.

@group(0) @binding(6) var<storage, read_write> out: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read_write> lse: array<u32>;
@group(0) @binding(8) var<storage, read> extras: array<u32>;

const TILE: u32 = 64u;
const COLUMNS: u32 = 16u;
const ROWS_EACH: u32 = ROWS * COLUMNS / WORKGROUP;
// Rows in fours: of an invocation, and of all.
const QUADS_EACH: u32 = ROWS_EACH / 4u;
const ROW_QUADS: u32 = ROWS / 4u;

// Quads of dims of q and K that are taken at a time, and how many times.
const DEPTH: u32 = 4u;
const SCORE_CHUNKS: u32 = (QUADS + DEPTH - 1u) / DEPTH;
// Dims of V are taken a quad for each column at a time; keys of V so many, and their weights twice as many.
const VALUE_CHUNKS: u32 = (QUADS + COLUMNS - 1u) / COLUMNS;
const VALUE_KEYS: u32 = 16u;
const WEIGHT_KEYS: u32 = 32u;

// Rows of workgroup memory are a little longer than what is in them: invocations that write beside each other then write
// to different banks.
const QUERY_STRIDE: u32 = ROWS + 2u;
const KEY_STRIDE: u32 = TILE + 2u;
const WEIGHT_STRIDE: u32 = ROW_QUADS + 1u;

// Queries (quad of dims, row); then what each column has of each row (column, quad of rows); then weights (key, quad of rows).
var<workgroup> memory: array<vec4<u32>, max(max(DEPTH * QUERY_STRIDE, COLUMNS * ROW_QUADS), WEIGHT_KEYS * WEIGHT_STRIDE)>;
// Keys (quad of dims, key); then values (key, quad of dims).
var<workgroup> tile: array<TileQuad, max(DEPTH * KEY_STRIDE, VALUE_KEYS * COLUMNS)>;

// Of each row: what q is multiplied by, what undoes it, times the scale of all scores, the first key that it sees, and how many.
var<workgroup> rowFacts: array<vec4<u32>, ROWS>;
// Where each row lies in q, or ABSENT.
var<workgroup> rowStarts: array<u32, ROWS>;
// With ALiBi, bits of each row's slope, and its position.
var<workgroup> rowSlopes: array<vec2<u32>, ROWS>;
// Of each key of a tile: where its key and value lie, or ABSENT, and bits of their scales, or the words where those of their
// groups begin.
var<workgroup> keyRows: array<u32, TILE>;
var<workgroup> valueRows: array<u32, TILE>;
var<workgroup> keyScales: array<u32, TILE>;
var<workgroup> valueScales: array<u32, TILE>;
// Not 0 where a key's product is to be NaN, or some value of the tile is no finite number.
var<workgroup> nanKeys: array<atomic<u32>, TILE>;
var<workgroup> specialValues: atomic<u32>;

alias Rows = array<vec4<f32>, ROWS_EACH>;
alias RowQuads = array<vec4<f32>, QUADS_EACH>;

fn measureRows(block: Block, lane: u32) {
  // So many invocations for each row.
  const SHARES = WORKGROUP / ROWS;
  let row = lane / SHARES;
  var largest = 0u;
  if (row < block.rows) {
    let at = headRow(block, row);
    for (var quad = lane % SHARES; quad < QUADS; quad += SHARES) { largest = max(largest, largestOf(queryQuad(at, block.kvHead, quad))); }
  }
  memory[lane] = vec4<u32>(largest);
  workgroupBarrier();
  if (lane < ROWS) {
    largest = 0u;
    for (var share = 0u; share < SHARES; share++) { largest = max(largest, memory[lane * SHARES + share].x); }
    let powers = powersOf(largest);
    let seen = visibleKeys(block, lane);
    rowFacts[lane] = vec4<u32>(bitcast<u32>(powers.x), bitcast<u32>(powers.y * params.scoreScale * givenKeyScale(block)), u32(seen.x), u32(seen.y - seen.x));
    rowStarts[lane] = select(ABSENT, headRow(block, lane), lane < block.rows);
    if (params.alibi != 0u) { rowSlopes[lane] = vec2<u32>(bitcast<u32>(slopeOf(block, lane)), bitcast<u32>(positionOf(block, lane))); }
  }
  workgroupBarrier();
}

fn findKeys(block: Block, seen: vec2<i32>, first: i32, lane: u32) {
  if (lane < TILE) {
    let key = first + i32(lane);
    var page = ABSENT;
    if (key >= seen.x && key < seen.y) { page = pageOf(block.sequence, u32(key)); }
    keyRows[lane] = ABSENT;
    valueRows[lane] = ABSENT;
    if (page != ABSENT) {
      keyRows[lane] = keyRow(page, block.kvHead, u32(key));
      valueRows[lane] = valueRow(page, block.kvHead, u32(key));
      keyScales[lane] = bitcast<u32>(keyScale(page, block.kvHead, u32(key)) * (K_UNIT / Q_UNIT));
      valueScales[lane] = bitcast<u32>(valueScale(page, block.kvHead, u32(key)) * V_UNIT);
      if (K_GROUP_QUADS > 0u) { keyScales[lane] = keyScaleWord(page, block.kvHead, u32(key)); }
      if (V_GROUP_QUADS > 0u) { valueScales[lane] = valueScaleWord(page, block.kvHead, u32(key)); }
    }
    atomicStore(&nanKeys[lane], 0u);
  }
  if (lane == 0u) { atomicStore(&specialValues, 0u); }
  workgroupBarrier();
}

fn loadQueries(kvHead: u32, chunk: u32, lane: u32) {
  for (var i = lane; i < DEPTH * ROWS; i += WORKGROUP) {
    let row = i / DEPTH;
    let quad = chunk * DEPTH + i % DEPTH;
    var query = vec4<f32>();
    if (rowStarts[row] != ABSENT && quad < QUADS) { query = bitcast<vec4<f32>>(queryQuad(rowStarts[row], kvHead, quad)) * bitcast<f32>(rowFacts[row].x) * Q_UNIT; }
    storeQuery((i % DEPTH) * QUERY_STRIDE + row, query);
  }
}

fn loadKeys(chunk: u32, lane: u32) {
  for (var i = lane; i < DEPTH * TILE; i += WORKGROUP) {
    let key = i / DEPTH;
    let quad = chunk * DEPTH + i % DEPTH;
    let at = (i % DEPTH) * KEY_STRIDE + key;
    if (keyRows[key] == ABSENT || quad >= QUADS) {
      tile[at] = TileQuad();
    } else if (storeKey(at, key, quad)) {
      atomicOr(&nanKeys[key], 1u);
    }
  }
}

// VALUE_KEYS keys of the tile, from the given one on.
fn loadValues(first: u32, chunk: u32, lane: u32) {
  for (var i = lane; i < VALUE_KEYS * COLUMNS; i += WORKGROUP) {
    let key = first + i / COLUMNS;
    let quad = chunk * COLUMNS + i % COLUMNS;
    if (valueRows[key] == ABSENT || quad >= QUADS) {
      tile[i] = TileQuad();
    } else if (storeValue(i, key, quad)) {
      atomicOr(&specialValues, 1u);
    }
  }
}

// Sums of a row's dims, with a value's product.
fn withValue(sums: vec4<f32>, weight: u32, value: vec4<f32>) -> vec4<f32> {
  return fma(vec4<f32>(bitcast<f32>(weight)), value, sums);
}

fn withVisible(sums: vec4<f32>, weight: u32, value: vec4<f32>) -> vec4<f32> {
  return select(withValue(sums, weight, value), sums, weight == MASKED);
}

// Scores of a row and 4 keys in their order, where the row sees them.
fn ordersOf(scores: vec4<f32>, nan: vec4<bool>, places: vec4<i32>, row: u32) -> vec4<i32> {
  let facts = rowFacts[row];
  var scaled = scores * bitcast<f32>(facts.y);
  if (params.alibi != 0u) {
    let distances = places - vec4<i32>(bitcast<i32>(rowSlopes[row].y));
    scaled = fma(vec4<f32>(bitcast<f32>(rowSlopes[row].x)), vec4<f32>(distances), scaled);
  }
  if (params.softcap != 0.0) {
    for (var n = 0u; n < 4u; n++) { scaled[n] = capped(scaled[n]); }
  }
  let bits = bitcast<vec4<i32>>(scaled);
  let orders = select(bits, bits ^ vec4<i32>(0x7fffffff), bits < vec4<i32>(0));
  let isNan = nan | ((bits & vec4<i32>(0x7fffffff)) > vec4<i32>(INFINITY_ORDER));
  // A key that is not there has a negative place, which is far after all others.
  let seen = vec4<u32>(places - vec4<i32>(i32(facts.z))) < vec4<u32>(facts.w);
  return select(vec4<i32>(NOTHING), select(orders, vec4<i32>(NAN_ORDER), isNan), seen);
}

fn largestIn(orders: vec4<i32>) -> i32 {
  return max(max(orders.x, orders.y), max(orders.z, orders.w));
}

fn weightsOf(orders: vec4<i32>, base: f32) -> vec4<f32> {
  return vec4<f32>(weightOf(orders.x, base), weightOf(orders.y, base), weightOf(orders.z, base), weightOf(orders.w, base));
}

@compute @workgroup_size(WORKGROUP)
fn prefill(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let index = linearIndex(group, groups);
  if (index >= params.blocks) { return; }
  // From the last on: causal rows that see most begin first.
  let block = blockOf(params.firstBlock + params.blocks - 1u - index);
  if (block.rows == 0u) { return; }
  let seen = visibleToSome(block);
  measureRows(block, lane);
  let column = lane % COLUMNS;
  let row = lane / COLUMNS * ROWS_EACH;
  let rowQuad = row / 4u;
  // What some of these rows see.
  var begin = 0x7fffffff;
  var end = 0;
  for (var r = 0u; r < ROWS_EACH; r++) {
    let facts = rowFacts[row + r];
    begin = min(begin, select(0x7fffffff, i32(facts.z), facts.w > 0u));
    end = max(end, i32(facts.z + facts.w));
  }

  var largest = array<vec4<i32>, QUADS_EACH>();
  for (var i = 0u; i < QUADS_EACH; i++) { largest[i] = vec4<i32>(NOTHING); }
  var sums = RowQuads();
  var values = array<vec4<f32>, ROWS_EACH * VALUE_CHUNKS>();

  for (var first = seen.x / i32(TILE) * i32(TILE); first < seen.y; first += i32(TILE)) {
    findKeys(block, seen, first, lane);
    var scores = Rows();
    let some = begin < first + i32(TILE) && end > first;
    for (var chunk = 0u; chunk < SCORE_CHUNKS; chunk++) {
      loadQueries(block.kvHead, chunk, lane);
      loadKeys(chunk, lane);
      workgroupBarrier();
      if (some) { addScores(&scores, row, column); }
      workgroupBarrier();
    }

    // Scores in their order, and the largest of each row.
    var places = vec4<i32>(-1);
    var kScales = vec4<f32>();
    var vScales = vec4<f32>();
    var nan = vec4<bool>();
    for (var n = 0u; n < 4u; n++) {
      let at = n * COLUMNS + column;
      if (keyRows[at] != ABSENT) { places[n] = first + i32(at); }
      kScales[n] = select(bitcast<f32>(keyScales[at]), K_UNIT / Q_UNIT, K_GROUP_QUADS > 0u);
      vScales[n] = select(bitcast<f32>(valueScales[at]), V_UNIT, V_GROUP_QUADS > 0u);
      nan[n] = atomicLoad(&nanKeys[at]) != 0u;
    }
    var orders = array<vec4<i32>, ROWS_EACH>();
    for (var r = 0u; r < ROWS_EACH; r++) { orders[r] = ordersOf(scores[r] * kScales, nan, places, row + r); }
    for (var i = 0u; i < QUADS_EACH; i++) {
      let most = vec4<i32>(largestIn(orders[4u * i]), largestIn(orders[4u * i + 1u]), largestIn(orders[4u * i + 2u]), largestIn(orders[4u * i + 3u]));
      memory[column * ROW_QUADS + rowQuad + i] = bitcast<vec4<u32>>(most);
    }
    workgroupBarrier();
    var rescale = RowQuads();
    for (var i = 0u; i < QUADS_EACH; i++) {
      var most = largest[i];
      for (var part = 0u; part < COLUMNS; part++) { most = max(most, bitcast<vec4<i32>>(memory[part * ROW_QUADS + rowQuad + i])); }
      for (var n = 0u; n < 4u; n++) {
        // Exactly 1 where nothing larger came, so that a tile that the row does not see changes nothing.
        rescale[i][n] = select(weightOf(largest[i][n], baseOf(most[n])), 1.0, most[n] == largest[i][n]);
      }
      largest[i] = most;
    }

    // What a tile adds is summed up by itself first: one sum of tens of thousands of terms alike loses four digits.
    var weights = array<vec4<u32>, ROWS_EACH>();
    for (var r = 0u; r < ROWS_EACH; r++) {
      let each = weightsOf(orders[r], baseOf(largest[r / 4u][r % 4u]));
      sums[r / 4u][r % 4u] = fma(sums[r / 4u][r % 4u], rescale[r / 4u][r % 4u], each.x + each.y + each.z + each.w);
      weights[r] = select(bitcast<vec4<u32>>(each * vScales), vec4<u32>(MASKED), orders[r] == vec4<i32>(NOTHING));
    }

    for (var half = 0u; half < TILE / WEIGHT_KEYS; half++) {
      workgroupBarrier();
      for (var i = 0u; i < QUADS_EACH; i++) {
        let a = select(weights[4u * i].xy, weights[4u * i].zw, half == 1u);
        let b = select(weights[4u * i + 1u].xy, weights[4u * i + 1u].zw, half == 1u);
        let c = select(weights[4u * i + 2u].xy, weights[4u * i + 2u].zw, half == 1u);
        let d = select(weights[4u * i + 3u].xy, weights[4u * i + 3u].zw, half == 1u);
        memory[column * WEIGHT_STRIDE + rowQuad + i] = vec4<u32>(a.x, b.x, c.x, d.x);
        memory[(COLUMNS + column) * WEIGHT_STRIDE + rowQuad + i] = vec4<u32>(a.y, b.y, c.y, d.y);
      }
      for (var chunk = 0u; chunk < VALUE_CHUNKS; chunk++) {
        var products = Rows();
        for (var part = 0u; part < WEIGHT_KEYS / VALUE_KEYS; part++) {
          let key = half * WEIGHT_KEYS + part * VALUE_KEYS;
          loadValues(key, chunk, lane);
          workgroupBarrier();
          // Keys that none of these rows sees have no weight.
          let begins = u32(clamp(begin - first - i32(key), 0, i32(VALUE_KEYS)));
          let ends = u32(clamp(end - first - i32(key), 0, i32(VALUE_KEYS)));
          addValues(&products, part * VALUE_KEYS, begins, ends, rowQuad, column);
          workgroupBarrier();
        }
        for (var r = 0u; r < ROWS_EACH; r++) {
          let factor = select(rescale[r / 4u][r % 4u], 1.0, half > 0u);
          values[chunk * ROWS_EACH + r] = fma(values[chunk * ROWS_EACH + r], vec4<f32>(factor), products[r]);
        }
      }
    }
  }

  for (var i = 0u; i < QUADS_EACH; i++) { memory[column * ROW_QUADS + rowQuad + i] = bitcast<vec4<u32>>(sums[i]); }
  workgroupBarrier();
  for (var i = 0u; i < QUADS_EACH; i++) {
    sums[i] = vec4<f32>();
    for (var part = 0u; part < COLUMNS; part++) { sums[i] += bitcast<vec4<f32>>(memory[part * ROW_QUADS + rowQuad + i]); }
  }
  for (var r = 0u; r < ROWS_EACH; r++) {
    if (row + r >= block.rows) { continue; }
    let mine = largest[r / 4u][r % 4u];
    let nothingSeen = mine == NOTHING;
    let sink = sinkOf(queryHead(block, row + r));
    let most = max(mine, sink.order);
    let own = weightOf(mine, baseOf(most));
    let sum = fma(sums[r / 4u][r % 4u], own, weightOf(sink.order, baseOf(most)));
    let at = rowStarts[row + r];
    for (var chunk = 0u; chunk < VALUE_CHUNKS; chunk++) {
      let quad = chunk * COLUMNS + column;
      if (quad < QUADS) { storeOut(at * QUADS + quad, outBits(block, quad, most, nothingSeen, sum, values[chunk * ROWS_EACH + r] * own)); }
    }
    if (column == 0u) { lse[at] = lseBits(most, nothingSeen, sum, sink.bits); }
  }
}
