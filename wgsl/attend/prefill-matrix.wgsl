// Attention of many rows by matrix units: as prefill.wgsl, but products are those of f16 matrices, summed in f32: within 5e-3 of
// exact attention, not 1e-4. Head dimensions to 128, 8-bit keys and values, whose codes are f16 exactly.
//
// A workgroup has 64 rows, a subgroup STRIPS strips of MATRIX_M of them: their queries and their sums of values are matrices
// that stay in its registers. For each tile of 32 keys:
//   results = q · K        into workgroup memory, where 2 invocations for each row read them
//   weights = 2^(score + log2(V scale) - base) as f16, back into workgroup memory
//   sums   += weights · V  never leaving the matrices
//
// The V scales are in the exponent, so that weights are f16 whatever the scales are. A row's base is a score that it saw: it
// moves when one comes that is SLACK above it, and not with each that is larger, because then the sums have to be taken out of
// their matrices and multiplied (adjustSums). The denominator has the largest score for itself, as elsewhere.
//
// Multiplied by 0 a value that is no finite number would reach rows that do not see it: the matrices get 0 in its place, and
// adjustSums adds it to those that do.

@group(0) @binding(6) var<storage, read_write> out: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read_write> lse: array<u32>;
@group(0) @binding(8) var<storage, read> extras: array<u32>;

const TILE: u32 = 32u;
const SLACK: f32 = 8.0;
// Rows of q are brought between this and twice as much: far from what a device may take for 0.
const Q_UNIT: f32 = 1024.0;
// Invocations of a row, and the keys of each: every other one.
const SHARES: u32 = WORKGROUP / ROWS;
const KEYS_EACH: u32 = TILE / SHARES;

// Dims with which matrices are full.
const STEP: u32 = max(MATRIX_N, MATRIX_K);
const DIMS: u32 = (4u * QUADS + STEP - 1u) / STEP * STEP;
// Matrices of each strip: of queries, and of sums.
const STRIPS: u32 = ROWS / MATRIX_M / SUBGROUPS;
const DEPTH: u32 = DIMS / MATRIX_K;
const WIDTH: u32 = DIMS / MATRIX_N;

// A little longer than what is in them, by 16 bytes: rows of a matrix then begin in different banks.
const TILE_STRIDE: u32 = DIMS + 8u;
const RESULT_STRIDE: u32 = TILE + 4u;
const WEIGHT_STRIDE: u32 = TILE + 8u;

// Queries (row, dim); then keys, then values (key, dim).
var<workgroup> tile: array<f16, TILE * TILE_STRIDE>;
// Products (row, key); or sums (row, dim), TILE dims at a time.
var<workgroup> results: array<f32, ROWS * RESULT_STRIDE>;
// (row, key)
var<workgroup> weights: array<f16, ROWS * WEIGHT_STRIDE>;

// Of each row: what q is multiplied by, where it lies in q, or ABSENT, the first key that it sees, and how many.
var<workgroup> rowFacts: array<vec4<u32>, ROWS>;
// What a row's sums are to be multiplied by before those of the tile are added.
var<workgroup> rowFactors: array<f32, ROWS>;
// What invocations of a row tell each other.
var<workgroup> parts: array<vec2<i32>, WORKGROUP>;
// Of each key of a tile: where its key and value lie, or ABSENT, and their scales.
var<workgroup> keyRows: array<u32, TILE>;
var<workgroup> valueRows: array<u32, TILE>;
var<workgroup> keyScales: array<f32, TILE>;
var<workgroup> valueScales: array<f32, TILE>;
// log2 of V's scale, and its sign: 0 where the scale is no finite number.
var<workgroup> valueExponents: array<vec2<f32>, TILE>;
// Not 0 where a key's product is to be NaN, where its value, or the scale of it, is no finite number, and where sums must be adjusted.
var<workgroup> nanKeys: array<atomic<u32>, TILE>;
var<workgroup> specialKeys: array<atomic<u32>, TILE>;
var<workgroup> adjusts: atomic<u32>;

alias Queries = array<LeftMatrix, STRIPS * DEPTH>;
alias Sums = array<ResultMatrix, STRIPS * WIDTH>;

fn isFinite(x: vec4<f32>) -> vec4<bool> {
  return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) < vec4<u32>(0x7f800000u);
}

fn storeQuad(row: u32, quad: u32, x: vec4<f32>) {
  let at = row * TILE_STRIDE + 4u * quad;
  let half = vec4<f16>(x);
  tile[at] = half.x;
  tile[at + 1u] = half.y;
  tile[at + 2u] = half.z;
  tile[at + 3u] = half.w;
}

// Gives what undoes the power of two of this invocation's row, times the scale of all scores.
fn measureRows(block: Block, lane: u32) -> f32 {
  let row = lane / SHARES;
  var largest = 0u;
  if (row < block.rows) {
    let at = headRow(block, row);
    for (var quad = lane % SHARES; quad < QUADS; quad += SHARES) { largest = max(largest, largestOf(queryQuad(at, block.kvHead, quad))); }
  }
  parts[lane] = vec2<i32>(bitcast<i32>(largest));
  workgroupBarrier();
  for (var share = 0u; share < SHARES; share++) { largest = max(largest, bitcast<u32>(parts[row * SHARES + share].x)); }
  let powers = powersOf(largest);
  if (lane % SHARES == 0u) {
    let seen = visibleKeys(block, row);
    let start = select(ABSENT, headRow(block, row), row < block.rows);
    rowFacts[row] = vec4<u32>(bitcast<u32>(powers.x), start, u32(seen.x), u32(seen.y - seen.x));
  }
  workgroupBarrier();
  return powers.y * params.scoreScale * givenKeyScale(block) / Q_UNIT;
}

fn sees(facts: vec4<u32>, key: i32) -> bool {
  return u32(key - i32(facts.z)) < facts.w;
}

// TILE rows at a time go through workgroup memory.
fn loadQueries(queries: ptr<function, Queries>, kvHead: u32, subgroup: u32, lane: u32) {
  for (var first = 0u; first < ROWS; first += TILE) {
    for (var i = lane; i < TILE * (DIMS / 4u); i += WORKGROUP) {
      let facts = rowFacts[first + i / (DIMS / 4u)];
      let quad = i % (DIMS / 4u);
      var query = vec4<f32>();
      if (facts.y != ABSENT && quad < QUADS) { query = bitcast<vec4<f32>>(queryQuad(facts.y, kvHead, quad)) * bitcast<f32>(facts.x) * Q_UNIT; }
      storeQuad(i / (DIMS / 4u), quad, query);
    }
    workgroupBarrier();
    for (var strip = 0u; strip < STRIPS; strip++) {
      let row = (subgroup * STRIPS + strip) * MATRIX_M;
      if (row >= first && row < first + TILE) {
        for (var k = 0u; k < DEPTH; k++) { (*queries)[strip * DEPTH + k] = queriesAt((row - first) * TILE_STRIDE + k * MATRIX_K); }
      }
    }
    workgroupBarrier();
  }
}

fn findKeys(block: Block, seen: vec2<i32>, first: i32, lane: u32) {
  if (lane < TILE) {
    let key = first + i32(lane);
    var page = ABSENT;
    if (key >= seen.x && key < seen.y) { page = pageOf(block.sequence, u32(key)); }
    keyRows[lane] = ABSENT;
    valueRows[lane] = ABSENT;
    valueExponents[lane] = vec2<f32>();
    atomicStore(&specialKeys[lane], 0u);
    atomicStore(&nanKeys[lane], 0u);
    if (page != ABSENT) {
      keyRows[lane] = keyRow(page, block.kvHead, u32(key));
      valueRows[lane] = valueRow(page, block.kvHead, u32(key));
      keyScales[lane] = keyScale(page, block.kvHead, u32(key)) * K_UNIT;
      let scale = valueScale(page, block.kvHead, u32(key));
      valueScales[lane] = scale;
      if (isFinite(vec4<f32>(scale)).x) {
        valueExponents[lane] = vec2<f32>(log2(abs(scale)), select(-1.0, 1.0, scale > 0.0));
      } else {
        atomicStore(&specialKeys[lane], 1u);
      }
    }
  }
  if (lane == 0u) { atomicStore(&adjusts, 0u); }
  workgroupBarrier();
}

fn loadKeys(lane: u32) {
  for (var i = lane; i < TILE * (DIMS / 4u); i += WORKGROUP) {
    let at = i / (DIMS / 4u);
    let quad = i % (DIMS / 4u);
    var key = vec4<f32>();
    if (keyRows[at] != ABSENT && quad < QUADS) {
      let loaded = keyQuad(at, quad);
      key = loaded.quad;
      if (loaded.special) { atomicOr(&nanKeys[at], 1u); }
    }
    storeQuad(at, quad, key);
  }
}

fn loadValues(lane: u32) {
  for (var i = lane; i < TILE * (DIMS / 4u); i += WORKGROUP) {
    let at = i / (DIMS / 4u);
    let quad = i % (DIMS / 4u);
    var value = vec4<f32>();
    if (valueRows[at] != ABSENT && quad < QUADS) {
      let loaded = valueQuad(at, quad);
      value = select(vec4<f32>(), loaded.quad, isFinite(loaded.quad));
      if (loaded.special) { atomicOr(&specialKeys[at], 1u); }
    }
    if (atomicLoad(&specialKeys[at]) != 0u) { atomicStore(&adjusts, 1u); }
    storeQuad(at, quad, value);
  }
}

// What scores of a row are multiplied by, ALiBi's slope, and the position from which it counts.
struct Bias {
  factor: f32,
  slope: f32,
  position: i32,
}

// The order of a row's score with a key of the tile, or NOTHING where it does not see it.
fn orderAt(facts: vec4<u32>, bias: Bias, row: u32, first: i32, at: u32) -> i32 {
  if (keyRows[at] == ABSENT || !sees(facts, first + i32(at))) { return NOTHING; }
  if (atomicLoad(&nanKeys[at]) != 0u) { return NAN_ORDER; }
  let score = results[row * RESULT_STRIDE + at] * keyScales[at] * bias.factor;
  return orderOf(capped(biased(score, bias.slope, first + i32(at) - bias.position)));
}

// The order of a score that is part of a value's weight, with the scale of the value. Scores that make the row NaN are not.
fn weightOrder(order: i32, at: u32) -> i32 {
  if (order <= MINUS_INFINITY_ORDER || order >= INFINITY_ORDER || valueExponents[at].y == 0.0) { return NOTHING; }
  return orderOf(scoreOf(order) + valueExponents[at].x);
}

// What a row gets of values of the tile that are no finite numbers, in one dim.
fn specialSum(row: u32, dim: u32, first: i32) -> f32 {
  var sum = 0.0;
  for (var at = 0u; at < TILE; at++) {
    if (atomicLoad(&specialKeys[at]) == 0u || dim >= 4u * QUADS || !sees(rowFacts[row], first + i32(at))) { continue; }
    let value = valueQuad(at, dim / 4u).quad[dim % 4u] * valueScales[at];
    if (!isFinite(vec4<f32>(value)).x) { sum += value; }
  }
  return sum;
}

fn adjustSums(sums: ptr<function, Sums>, subgroup: u32, lane: u32, first: i32) {
  for (var n = 0u; n < WIDTH; n += TILE / MATRIX_N) {
    for (var strip = 0u; strip < STRIPS; strip++) {
      let at = (subgroup * STRIPS + strip) * MATRIX_M * RESULT_STRIDE;
      for (var i = 0u; i < min(TILE / MATRIX_N, WIDTH - n); i++) { storeResult(at + i * MATRIX_N, (*sums)[strip * WIDTH + n + i]); }
    }
    workgroupBarrier();
    for (var i = lane; i < ROWS * TILE; i += WORKGROUP) {
      let row = i / TILE;
      let at = row * RESULT_STRIDE + i % TILE;
      results[at] = results[at] * rowFactors[row] + specialSum(row, n * MATRIX_N + i % TILE, first);
    }
    workgroupBarrier();
    for (var strip = 0u; strip < STRIPS; strip++) {
      let at = (subgroup * STRIPS + strip) * MATRIX_M * RESULT_STRIDE;
      for (var i = 0u; i < min(TILE / MATRIX_N, WIDTH - n); i++) { (*sums)[strip * WIDTH + n + i] = resultAt(at + i * MATRIX_N); }
    }
    workgroupBarrier();
  }
}

@compute @workgroup_size(WORKGROUP)
fn prefill(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32) {
  let index = linearIndex(group, groups);
  if (index >= params.blocks) { return; }
  // From the last on: causal rows that see most begin first.
  let block = blockOf(params.firstBlock + params.blocks - 1u - index);
  if (block.rows == 0u) { return; }
  let seen = visibleToSome(block);
  let row = lane / SHARES;
  let bias = Bias(measureRows(block, lane), slopeOf(block, row), positionOf(block, row));
  let facts = rowFacts[row];
  var queries = Queries();
  loadQueries(&queries, block.kvHead, subgroup, lane);

  var largest = NOTHING;
  var base = NOTHING;
  var sum = 0.0;
  var sums = Sums();

  for (var first = seen.x / i32(TILE) * i32(TILE); first < seen.y; first += i32(TILE)) {
    findKeys(block, seen, first, lane);
    loadKeys(lane);
    workgroupBarrier();
    for (var strip = 0u; strip < STRIPS; strip++) {
      for (var n = 0u; n < TILE / MATRIX_N; n++) {
        var products = ResultMatrix();
        for (var k = 0u; k < DEPTH; k++) { products = multiplied(queries[strip * DEPTH + k], keysAt(n * MATRIX_N * TILE_STRIDE + k * MATRIX_K), products); }
        storeResult((subgroup * STRIPS + strip) * MATRIX_M * RESULT_STRIDE + n * MATRIX_N, products);
      }
    }
    workgroupBarrier();
    loadValues(lane);

    // Scores in their order, and the largest of each row, with and without V's scales.
    var orders = array<i32, KEYS_EACH>();
    var most = NOTHING;
    var mostWeight = NOTHING;
    for (var n = 0u; n < KEYS_EACH; n++) {
      let at = n * SHARES + lane % SHARES;
      orders[n] = orderAt(facts, bias, row, first, at);
      most = max(most, orders[n]);
      mostWeight = max(mostWeight, weightOrder(orders[n], at));
    }
    parts[lane] = vec2<i32>(most, mostWeight);
    workgroupBarrier();
    most = largest;
    for (var share = 0u; share < SHARES; share++) {
      most = max(most, parts[row * SHARES + share].x);
      mostWeight = max(mostWeight, parts[row * SHARES + share].y);
    }

    // Exactly 1 where the base stays, so that what other rows need changes nothing.
    var factor = 1.0;
    if (mostWeight > MINUS_INFINITY_ORDER && base == NOTHING) {
      base = mostWeight;
    } else if (mostWeight > MINUS_INFINITY_ORDER && scoreOf(mostWeight) > scoreOf(base) + SLACK) {
      factor = exp2(scoreOf(base) - scoreOf(mostWeight));
      base = mostWeight;
      atomicStore(&adjusts, 1u);
    }
    if (lane % SHARES == 0u) { rowFactors[row] = factor; }

    var added = 0.0;
    for (var n = 0u; n < KEYS_EACH; n++) {
      let at = n * SHARES + lane % SHARES;
      added += weightOf(orders[n], baseOf(most));
      let order = weightOrder(orders[n], at);
      let weight = select(exp2(scoreOf(order) - scoreOf(base)) * valueExponents[at].y, 0.0, order <= MINUS_INFINITY_ORDER);
      weights[row * WEIGHT_STRIDE + at] = f16(weight);
    }
    sum = fma(sum, select(weightOf(largest, baseOf(most)), 1.0, most == largest), added);
    largest = most;

    if (workgroupUniformLoad(&adjusts) != 0u) { adjustSums(&sums, subgroup, lane, first); }
    for (var strip = 0u; strip < STRIPS; strip++) {
      for (var k = 0u; k < TILE / MATRIX_K; k++) {
        let left = weightsAt((subgroup * STRIPS + strip) * MATRIX_M * WEIGHT_STRIDE + k * MATRIX_K);
        for (var n = 0u; n < WIDTH; n++) { sums[strip * WIDTH + n] = multiplied(left, valuesAt(k * MATRIX_K * TILE_STRIDE + n * MATRIX_N), sums[strip * WIDTH + n]); }
      }
    }
    workgroupBarrier();
  }

  parts[lane] = vec2<i32>(bitcast<i32>(sum));
  workgroupBarrier();
  sum = 0.0;
  for (var share = 0u; share < SHARES; share++) { sum += bitcast<f32>(parts[row * SHARES + share].x); }
  let nothingSeen = largest == NOTHING;
  let sink = sinkOf(queryHead(block, row));
  let most = max(largest, sink.order);
  sum = fma(sum, weightOf(largest, baseOf(most)), weightOf(sink.order, baseOf(most)));
  // What the sums of values lack: V's unit, and that they were weighed against another score.
  let own = select(exp2(scoreOf(base) - baseOf(most)) * V_UNIT, 0.0, base == NOTHING);
  if (row < block.rows && lane % SHARES == 0u) { lse[facts.y] = lseBits(most, nothingSeen, sum, sink.bits); }

  for (var n = 0u; n < WIDTH; n += TILE / MATRIX_N) {
    for (var strip = 0u; strip < STRIPS; strip++) {
      let at = (subgroup * STRIPS + strip) * MATRIX_M * RESULT_STRIDE;
      for (var i = 0u; i < min(TILE / MATRIX_N, WIDTH - n); i++) { storeResult(at + i * MATRIX_N, sums[strip * WIDTH + n + i]); }
    }
    workgroupBarrier();
    for (var quad = lane % SHARES; quad < TILE / 4u; quad += SHARES) {
      let at = row * RESULT_STRIDE + 4u * quad;
      let outQuad = n * MATRIX_N / 4u + quad;
      let values = vec4<f32>(results[at], results[at + 1u], results[at + 2u], results[at + 3u]);
      if (row < block.rows && outQuad < QUADS) { storeOut(facts.y * QUADS + outQuad, outBits(block, outQuad, most, nothingSeen, sum, values * own)); }
    }
    workgroupBarrier();
  }
}
