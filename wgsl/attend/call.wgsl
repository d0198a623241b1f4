// What the attention kernels are told, and how they find a sequence's rows and keys.
//
// q          (totalQ, queryHeads, headDim)   f32 | f16 | bf16
// blockTable (sequences, maxBlocks)
// Rows of a sequence that share a KV head are counted token by token, head of the group by head of the group, and taken in
// blocks of ROWS: block = (sequence · kvHeads + kvHead) · rowBlocks + rowBlock. Whoever finds a bad entry in a table leaves
// out what it stands for; decode.wgsl reports it, and check.wgsl where some rows are not decoded. AttendParams is `gpuAttendParams` of src/layout.ts.

@group(0) @binding(0) var<uniform> params: AttendParams;
@group(0) @binding(1) var<storage, read> cuSeqlensQ: array<i32>;
// Where params.contexts is not 0, contextLens begins there; else a sequence has as many tokens as keys.
@group(0) @binding(2) var<storage, read> seqUsedK: array<i32>;

// Workgroups may be spread over x and y, where there are more than fit into one dimension.
fn linearIndex(id: vec3<u32>, count: vec3<u32>) -> u32 {
  return id.x + id.y * count.x;
}

struct Sequence {
  // Its first row in q, rows, keys, and the token that its first row is.
  first: i32,
  rows: i32,
  keys: i32,
  position: i32,
}

fn sequenceOf(index: u32) -> Sequence {
  let first = cuSeqlensQ[index];
  let end = cuSeqlensQ[index + 1u];
  let keys = seqUsedK[index];
  let context = seqUsedK[params.contexts + index];
  let known = first >= 0 && end >= first && end <= i32(params.totalQ) && end - first <= params.maxRows;
  let fits = keys >= 0 && keys <= params.maxKeys && context >= keys && context <= MAX_CONTEXT;
  let rows = select(0, end - first, known);
  return Sequence(first, rows, select(0, keys, fits), select(0, context, fits) - rows);
}

// Whether the tables say anything else of a sequence than what is taken of them.
fn lengthsDiffer(index: u32, source: Sequence) -> bool {
  let rowsDiffer = cuSeqlensQ[index] != source.first || cuSeqlensQ[index + 1u] != source.first + source.rows;
  return rowsDiffer || seqUsedK[index] != source.keys || seqUsedK[params.contexts + index] != source.position + source.rows;
}

// A block of rows of one sequence and KV head.
struct Block {
  sequence: u32,
  kvHead: u32,
  // The first of its rows, counted within the sequence and KV head, and how many there are: 0 where this pass has none.
  firstRow: u32,
  rows: u32,
  source: Sequence,
}

fn blockOf(index: u32) -> Block {
  let head = index / params.rowBlocks;
  let sequence = head / params.kvHeads;
  let source = sequenceOf(sequence);
  let firstRow = index % params.rowBlocks * ROWS;
  let taken = source.rows >= params.leastRows && source.rows <= params.mostRows;
  let all = select(0u, u32(source.rows) * params.group, taken);
  return Block(sequence, head % params.kvHeads, firstRow, min(ROWS, max(all, firstRow) - firstRow), source);
}

// Row and query head, as q, out and lse count them: (totalQ, queryHeads).
fn headRow(block: Block, row: u32) -> u32 {
  let index = block.firstRow + row;
  return (u32(block.source.first) + index / params.group) * params.queryHeads + block.kvHead * params.group + index % params.group;
}

fn queryHead(block: Block, row: u32) -> u32 {
  return block.kvHead * params.group + (block.firstRow + row) % params.group;
}

// Which token of its sequence a row's is; negative where there are fewer tokens than rows.
fn positionOf(block: Block, row: u32) -> i32 {
  return block.source.position + i32((block.firstRow + row) / params.group);
}

// The keys that a row sees: from x to y - 1. Rows that a block does not have see none.
fn visibleKeys(block: Block, row: u32) -> vec2<i32> {
  let position = positionOf(block, row);
  var first = 0;
  var end = block.source.keys;
  if (params.causal != 0u) { end = min(end, position + 1); }
  if (params.windowLeft >= 0) { first = max(first, position - params.windowLeft); }
  if (params.windowRight >= 0) { end = min(end, position + params.windowRight + 1); }
  return select(vec2<i32>(0, 0), vec2<i32>(first, end), row < block.rows && first < end);
}

// The keys that some row of a block sees: windows move with the rows.
fn visibleToSome(block: Block) -> vec2<i32> {
  var first = 0x7fffffff;
  var end = 0;
  // Rows of one token see the same.
  let lastToken = (block.firstRow + max(block.rows, 1u) - 1u) / params.group;
  for (var token = block.firstRow / params.group; token <= lastToken; token++) {
    let seen = visibleKeys(block, max(token * params.group, block.firstRow) - block.firstRow);
    if (seen.x < seen.y) {
      first = min(first, seen.x);
      end = max(end, seen.y);
    }
  }
  return select(vec2<i32>(0, 0), vec2<i32>(first, end), first < end);
}
