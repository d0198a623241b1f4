// Tries matrix.wgsl out, each of its functions in each subgroup: query · key + weight · value of small integers, whose sums
// are exact. probe.ts knows what must come out.

// (subgroup, row, column)
@group(0) @binding(0) var<storage, read_write> sums: array<f32>;

const TILE_STRIDE: u32 = max(MATRIX_N, MATRIX_K) + 8u;
const WEIGHT_STRIDE: u32 = MATRIX_K + 8u;
const RESULT_STRIDE: u32 = MATRIX_N + 4u;

// Where keys and values begin, after queries.
const KEYS: u32 = MATRIX_M * TILE_STRIDE;
const VALUES: u32 = KEYS + MATRIX_N * TILE_STRIDE;
var<workgroup> tile: array<f16, VALUES + MATRIX_K * TILE_STRIDE>;
var<workgroup> weights: array<f16, MATRIX_M * WEIGHT_STRIDE>;
var<workgroup> results: array<f32, SUBGROUPS * MATRIX_M * RESULT_STRIDE>;

fn small(row: u32, column: u32, period: u32) -> f16 {
  return f16(f32((3u * row + 5u * column) % period) - f32(period / 2u));
}

@compute @workgroup_size(WORKGROUP)
fn probe(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32) {
  for (var i = lane; i < MATRIX_M * MATRIX_K; i += WORKGROUP) {
    let row = i / MATRIX_K;
    let k = i % MATRIX_K;
    tile[row * TILE_STRIDE + k] = small(row, k, 7u);
    weights[row * WEIGHT_STRIDE + k] = small(row, k, 9u);
  }
  for (var i = lane; i < MATRIX_N * MATRIX_K; i += WORKGROUP) {
    let column = i / MATRIX_K;
    let k = i % MATRIX_K;
    tile[KEYS + column * TILE_STRIDE + k] = small(column, k, 11u);
    tile[VALUES + k * TILE_STRIDE + column] = small(k, column, 13u);
  }
  workgroupBarrier();
  let at = subgroup * MATRIX_M * RESULT_STRIDE;
  storeResult(at, multiplied(queriesAt(0u), keysAt(KEYS), ResultMatrix()));
  workgroupBarrier();
  let result = multiplied(weightsAt(0u), valuesAt(VALUES), resultAt(at));
  workgroupBarrier();
  storeResult(at, result);
  workgroupBarrier();
  for (var i = lane; i < SUBGROUPS * MATRIX_M * MATRIX_N; i += WORKGROUP) {
    sums[i] = results[i / MATRIX_N * RESULT_STRIDE + i % MATRIX_N];
  }
}
