// What prefill-matrix.wgsl does with matrices, each of which a subgroup has together. The one file that speaks the dialect of
// `chromium_experimental_subgroup_matrix`: that of 2026, where majorness is a template argument.
//
// left (row, dim or key) · right (dim or key, key or dim) + result; f16 · f16 + f32. Where a matrix begins and how far apart
// its rows are is counted in elements of the array.

alias LeftMatrix = subgroup_matrix_left<f16, MATRIX_K, MATRIX_M>;
alias RightMatrix = subgroup_matrix_right<f16, MATRIX_N, MATRIX_K>;
alias ResultMatrix = subgroup_matrix_result<f32, MATRIX_N, MATRIX_M>;

fn queriesAt(at: u32) -> LeftMatrix {
  return subgroupMatrixLoad<LeftMatrix, row_major>(&tile, at, TILE_STRIDE);
}

fn weightsAt(at: u32) -> LeftMatrix {
  return subgroupMatrixLoad<LeftMatrix, row_major>(&weights, at, WEIGHT_STRIDE);
}

// Keys lie as rows, and are the columns of the matrix.
fn keysAt(at: u32) -> RightMatrix {
  return subgroupMatrixLoad<RightMatrix, col_major>(&tile, at, TILE_STRIDE);
}

fn valuesAt(at: u32) -> RightMatrix {
  return subgroupMatrixLoad<RightMatrix, row_major>(&tile, at, TILE_STRIDE);
}

fn multiplied(left: LeftMatrix, right: RightMatrix, sums: ResultMatrix) -> ResultMatrix {
  return subgroupMatrixMultiplyAccumulate(left, right, sums);
}

fn storeResult(at: u32, result: ResultMatrix) {
  subgroupMatrixStore<row_major>(&results, at, result, RESULT_STRIDE);
}

fn resultAt(at: u32) -> ResultMatrix {
  return subgroupMatrixLoad<ResultMatrix, row_major>(&results, at, RESULT_STRIDE);
}
