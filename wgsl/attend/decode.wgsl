// Attention of few rows: one workgroup takes a block of rows over some cuts of the keys, and leaves a partial result for each.
//
// partials (blocks of the pass, cuts, ROWS, 1 + QUADS) of 16 bytes: the largest score, as softmax.wgsl orders it, and the sum
// of weights; then the sums of weight · V scale · value. merge.wgsl joins them.
//
// LANES invocations share a key and then a value: each reads 16 bytes at a time, next to its neighbours', has 16 dims in
// registers, and multiplies them with all rows of the block, whose queries, and then sums, it has there too. A key's products
// are added up two by two, in workgroup memory or between the invocations of a subgroup: join-plain.wgsl, join-subgroups.wgsl.
//
// Cuts lie at fixed keys and sums go in a fixed order: a row's bits depend on nothing but its own keys, and neither on how
// many cuts a workgroup takes nor on how many loads go ahead.
//
// What is wrong with tables that lie in GPU buffers it says in the status word.

@group(0) @binding(6) var<storage, read_write> partials: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> status: array<atomic<u32>>;
@group(0) @binding(8) var<storage, read> extras: array<u32>;

// Keys that a workgroup reads at a time, which are also its streams of values.
const GROUPS: u32 = WORKGROUP / LANES;
// Keys that each group multiplies before their products are added up; and keys or values whose loads go ahead of products.
const ROUND: u32 = min(16u / ROWS, CUT_KEYS / GROUPS);
const KEYS_AHEAD: u32 = clamp(LOADS_AHEAD / K_EACH, 1u, ROUND);
const VALUES_AHEAD: u32 = clamp(LOADS_AHEAD / V_EACH, 1u, CUT_KEYS / GROUPS);
const KEYS_EACH: u32 = CUT_KEYS / WORKGROUP;
// Groups' invocations lie one word apart from those of the next, so that reading across groups meets no bank twice.
const SPACED: u32 = LANES + select(0u, 1u, LANES >= 4u);
const STRIDE: u32 = GROUPS * SPACED;

// Bits of products by key of a round, row and invocation; then of what is reduced; then of sums by dim and invocation.
var<workgroup> parts: array<u32, 16u * STRIDE>;
// (row, key): bits of products, then of weights.
var<workgroup> scores: array<u32, ROWS * CUT_KEYS>;
// First unit of each key and its value, or ABSENT.
var<workgroup> keyRows: array<u32, CUT_KEYS>;
var<workgroup> valueRows: array<u32, CUT_KEYS>;
// Bits of the largest magnitude of each row of q.
var<workgroup> largestQueries: array<atomic<u32>, ROWS>;

alias Rows = array<f32, ROWS>;
alias Orders = array<i32, ROWS>;

var<private> queries: array<KeyDims, ROWS>;
// What undoes the power of two that each row of q was multiplied by, times the scale of all scores.
var<private> factors: Rows;

// 4 dims of a row of q that an invocation has.
fn ownQuery(block: Block, row: u32, lane: u32, column: u32) -> vec4<u32> {
  let quad = ((column / K_UNIT_QUADS) * LANES + lane % LANES) * K_UNIT_QUADS + column % K_UNIT_QUADS;
  if (quad >= QUADS) { return vec4<u32>(); }
  return queryQuad(headRow(block, row), block.kvHead, quad);
}

fn loadQueries(block: Block, lane: u32) {
  var rows = array<mat4x4<f32>, ROWS>();
  for (var r = 0u; r < ROWS; r++) {
    // Rows that are not there are 0: nobody sees what comes of them.
    if (r >= block.rows) { break; }
    let x = array<vec4<u32>, 4>(ownQuery(block, r, lane, 0u), ownQuery(block, r, lane, 1u), ownQuery(block, r, lane, 2u), ownQuery(block, r, lane, 3u));
    rows[r] = mat4x4<f32>(bitcast<vec4<f32>>(x[0]), bitcast<vec4<f32>>(x[1]), bitcast<vec4<f32>>(x[2]), bitcast<vec4<f32>>(x[3]));
    if (lane < LANES) { atomicMax(&largestQueries[r], max(max(largestOf(x[0]), largestOf(x[1])), max(largestOf(x[2]), largestOf(x[3])))); }
  }
  workgroupBarrier();
  let scale = givenKeyScale(block);
  for (var r = 0u; r < ROWS; r++) {
    let powers = powersOf(atomicLoad(&largestQueries[r]));
    factors[r] = powers.y * params.scoreScale * scale;
    queries[r] = queryDims(rows[r] * powers.x);
  }
}

// An invocation's part of a key, or of a value, and its scales where groups have their own. What is not there reads as the
// first of all pages: its score counts nothing.
fn loadKey(row: u32, kvHead: u32, key: u32, lane: u32) -> KeyWords {
  var words = KeyWords();
  for (var i = 0u; i < K_EACH; i++) {
    let unit = i * LANES + lane % LANES;
    if (K_UNITS == K_EACH * LANES || unit < K_UNITS) { words[i] = pages[select(row, 0u, row == ABSENT) + unit]; }
  }
  if (K_GROUP_QUADS > 0u && row != ABSENT) {
    let page = row - keyRow(0u, kvHead, key);
    words[K_WORDS - 1u] = unitScales(keyScaleWord(page, kvHead, key), params.kScaleGroupStride, K_GROUP_QUADS, lane % LANES);
  }
  return words;
}

fn loadValue(row: u32, kvHead: u32, key: u32, lane: u32) -> ValueWords {
  var words = ValueWords();
  for (var i = 0u; i < V_EACH; i++) {
    let unit = i * LANES + lane % LANES;
    if (V_UNITS == V_EACH * LANES || unit < V_UNITS) { words[i] = pages[select(row, 0u, row == ABSENT) + unit]; }
  }
  if (V_GROUP_QUADS > 0u && row != ABSENT) {
    let page = row - valueRow(0u, kvHead, key);
    words[V_WORDS - 1u] = unitScales(valueScaleWord(page, kvHead, key), params.vScaleGroupStride, V_GROUP_QUADS, lane % LANES);
  }
  return words;
}

// Keys of a cut whose parts an invocation has under way, from the given one of its group on.
fn loadKeys(kvHead: u32, cut: u32, first: u32, lane: u32) -> array<KeyWords, KEYS_AHEAD> {
  var words = array<KeyWords, KEYS_AHEAD>();
  for (var n = 0u; n < KEYS_AHEAD; n++) {
    let at = first + n * GROUPS + lane / LANES;
    words[n] = loadKey(keyRows[at], kvHead, cut + at, lane);
  }
  return words;
}

// Products of all keys of a cut that are seen, and of some more, with all rows; the cut begins at the given key. Loads of the
// next keys go before the products of those that are there, and so before what invocations wait for.
fn multiplyKeys(kvHead: u32, cut: u32, begin: u32, end: u32, lane: u32) {
  let start = begin / (ROUND * GROUPS) * (ROUND * GROUPS);
  var next = loadKeys(kvHead, cut, start, lane);
  for (var first = start; first < end; first += ROUND * GROUPS) {
    for (var ahead = 0u; ahead < ROUND; ahead += KEYS_AHEAD) {
      let words = next;
      let following = first + (ahead + KEYS_AHEAD) * GROUPS;
      if (following < end) { next = loadKeys(kvHead, cut, following, lane); }
      var products = array<Rows, KEYS_AHEAD>();
      for (var n = 0u; n < KEYS_AHEAD; n++) {
        let isNan = nanKey(words[n]) != 0u;
        let key = decodeKey(words[n]);
        for (var r = 0u; r < ROWS; r++) { products[n][r] = select(productOf(queries[r], key), bitcast<f32>(params.nan), isNan); }
      }
      keepProducts(products, first, ahead, lane);
    }
    joinProducts(first, lane);
  }
}

var<private> values: array<mat4x4<f32>, ROWS>;

// Sums of a row, with a value's product: as fma, so that no compiler does one thing here and another there.
fn withValue(sums: mat4x4<f32>, weightBits: u32, value: mat4x4<f32>) -> mat4x4<f32> {
  let weight = vec4<f32>(bitcast<f32>(weightBits));
  return mat4x4<f32>(fma(value[0], weight, sums[0]), fma(value[1], weight, sums[1]), fma(value[2], weight, sums[2]), fma(value[3], weight, sums[3]));
}

// Sums of weight · value, stream by stream.
fn multiplyValues(kvHead: u32, cut: u32, begin: u32, end: u32, lane: u32) {
  for (var r = 0u; r < ROWS; r++) { values[r] = mat4x4<f32>(); }
  for (var first = begin / (VALUES_AHEAD * GROUPS) * (VALUES_AHEAD * GROUPS); first < end; first += VALUES_AHEAD * GROUPS) {
    var words = array<ValueWords, VALUES_AHEAD>();
    for (var n = 0u; n < VALUES_AHEAD; n++) {
      let at = first + n * GROUPS + lane / LANES;
      words[n] = loadValue(valueRows[at], kvHead, cut + at, lane);
    }
    for (var n = 0u; n < VALUES_AHEAD; n++) {
      let key = first + n * GROUPS + lane / LANES;
      if (specialValue(words[n]) != 0u) {
        let value = decodeAllValue(words[n], bitcast<f32>(params.nan));
        for (var r = 0u; r < ROWS; r++) {
          let weight = scores[r * CUT_KEYS + key];
          if (weight != MASKED) { values[r] = withValue(values[r], weight, value); }
        }
      } else {
        let value = decodeValue(words[n]);
        for (var r = 0u; r < ROWS; r++) { values[r] = withValue(values[r], scores[r * CUT_KEYS + key], value); }
      }
    }
  }
}

// Sums over all streams, to where the merge finds them.
fn storeValues(partial: u32, rows: u32, lane: u32) {
  let place = lane / LANES * SPACED + lane % LANES;
  let unit = lane / V_UNIT_QUADS;
  let own = (unit / LANES * V_UNIT_QUADS + lane % V_UNIT_QUADS) * 4u * STRIDE + unit % LANES;
  for (var r = 0u; r < ROWS; r++) {
    for (var column = 0u; column < 4u; column++) {
      let quad = bitcast<vec4<u32>>(values[r][column]);
      let at = 4u * column * STRIDE + place;
      parts[at] = quad.x;
      parts[at + STRIDE] = quad.y;
      parts[at + 2u * STRIDE] = quad.z;
      parts[at + 3u * STRIDE] = quad.w;
    }
    workgroupBarrier();
    if (lane < QUADS && r < rows) {
      var total = vec4<f32>();
      for (var s = own; s < own + STRIDE; s += SPACED) {
        total += bitcast<vec4<f32>>(vec4<u32>(parts[s], parts[s + STRIDE], parts[s + 2u * STRIDE], parts[s + 3u * STRIDE]));
      }
      partials[partial + r * (1u + QUADS) + 1u + lane] = bitcast<vec4<u32>>(total);
    }
    workgroupBarrier();
  }
}

fn decodeCut(block: Block, seen: vec2<i32>, first: u32, partial: u32, lane: u32) {
  // Where its keys are, with their scales.
  var scales = array<vec2<f32>, KEYS_EACH>();
  for (var n = 0u; n < KEYS_EACH; n++) {
    let key = first + n * WORKGROUP + lane;
    var page = ABSENT;
    if (i32(key) >= seen.x && i32(key) < seen.y) {
      page = pageOf(block.sequence, key);
      if (page == ABSENT) { atomicOr(&status[0], BAD_PAGE); }
    }
    var rows = vec2<u32>(ABSENT);
    if (page != ABSENT) {
      rows = vec2<u32>(keyRow(page, block.kvHead, key), valueRow(page, block.kvHead, key));
      scales[n] = vec2<f32>(keyScale(page, block.kvHead, key) * (K_UNIT / Q_UNIT), valueScale(page, block.kvHead, key) * V_UNIT);
    }
    keyRows[n * WORKGROUP + lane] = rows.x;
    valueRows[n * WORKGROUP + lane] = rows.y;
  }
  workgroupBarrier();
  let begin = u32(max(seen.x, i32(first)) - i32(first));
  let end = u32(min(seen.y, i32(first + CUT_KEYS)) - i32(first));
  multiplyKeys(block.kvHead, first, begin, end, lane);
  workgroupBarrier();

  // Scores, and the largest of each row.
  var orders = array<Orders, KEYS_EACH>();
  var largest = Orders();
  for (var r = 0u; r < ROWS; r++) {
    let visible = visibleKeys(block, r);
    let position = positionOf(block, r);
    let slope = slopeOf(block, r);
    largest[r] = NOTHING;
    for (var n = 0u; n < KEYS_EACH; n++) {
      let at = n * WORKGROUP + lane;
      let key = i32(first + at);
      let score = bitcast<f32>(scores[r * CUT_KEYS + at]) * scales[n].x * factors[r];
      let order = orderOf(capped(biased(score, slope, key - position)));
      orders[n][r] = select(NOTHING, order, key >= visible.x && key < visible.y && keyRows[at] != ABSENT);
      largest[r] = max(largest[r], orders[n][r]);
    }
  }
  largest = largestOfAll(lane, largest);

  // Weights.
  var sums = Rows();
  for (var r = 0u; r < ROWS; r++) {
    let base = baseOf(largest[r]);
    for (var n = 0u; n < KEYS_EACH; n++) {
      let weight = weightOf(orders[n][r], base);
      sums[r] += weight;
      scores[r * CUT_KEYS + n * WORKGROUP + lane] = select(bitcast<u32>(weight * scales[n].y), MASKED, orders[n][r] == NOTHING);
    }
  }
  sums = sumOfAll(lane, sums);
  for (var r = 0u; r < ROWS; r++) {
    if (lane == r) { partials[partial + r * (1u + QUADS)] = vec4<u32>(bitcast<u32>(largest[r]), bitcast<u32>(sums[r]), 0u, 0u); }
  }

  multiplyValues(block.kvHead, first, begin, end, lane);
  storeValues(partial, block.rows, lane);
}

@compute @workgroup_size(WORKGROUP)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  // Blocks go first, so that those whose rows see the same keys follow each other.
  let index = linearIndex(group, groups);
  let within = index % params.blocks;
  let firstCut = index / params.blocks * params.cutsEach;
  if (firstCut >= params.cuts) { return; }
  let block = blockOf(params.firstBlock + within);
  if (lane == 0u && lengthsDiffer(block.sequence, block.source)) { atomicOr(&status[0], BAD_LENGTH); }
  if (block.rows == 0u) { return; }
  let seen = visibleToSome(block);
  let start = u32(seen.x) / CUT_KEYS;
  if (i32((start + firstCut) * CUT_KEYS) >= seen.y) { return; }
  loadQueries(block, lane);
  for (var cut = firstCut; cut < min(firstCut + params.cutsEach, params.cuts); cut++) {
    let first = (start + cut) * CUT_KEYS;
    if (i32(first) >= seen.y) { break; }
    decodeCut(block, seen, first, (within * params.cuts + cut) * ROWS * (1u + QUADS), lane);
  }
}
