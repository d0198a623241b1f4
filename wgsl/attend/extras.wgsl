// What a call says of single heads: bits of f32 in one buffer, `extras`, as kernels have but so many bindings. Sinks come
// first, by query head; where the others begin params say, and 0 stands for what there is none of.
//
// Given scales are a factor of all scores, or of out, for each sequence and KV head. Those of channels are such a factor, too,
// and one of at most 1 for each dim: of q, or of out.

fn extra(at: u32) -> f32 {
  return bitcast<f32>(extras[at]);
}

fn givenKeyScale(block: Block) -> f32 {
  if (params.kGiven == 0u) { return params.kScale; }
  return extra(params.kGiven + block.sequence * params.kGivenSequenceStride + block.kvHead * params.kGivenHeadStride);
}

fn givenValueScale(block: Block) -> f32 {
  if (params.vGiven == 0u) { return params.vScale; }
  return extra(params.vGiven + block.sequence * params.vGivenSequenceStride + block.kvHead * params.vGivenHeadStride);
}

// Factors of 4 dims of a KV head, of those that begin at the given place.
fn channelQuad(first: u32, kvHead: u32, quad: u32) -> vec4<f32> {
  let at = first + 4u * (kvHead * QUADS + quad);
  return vec4<f32>(extra(at), extra(at + 1u), extra(at + 2u), extra(at + 3u));
}

// What ALiBi adds to a row's score for each key that lies further on, in units of log2(e).
fn slopeOf(block: Block, row: u32) -> f32 {
  if (params.alibi == 0u) { return 0.0; }
  return extra(params.alibi + queryHead(block, row)) * LOG2_E;
}

// A score with what ALiBi adds.
fn biased(score: f32, slope: f32, distance: i32) -> f32 {
  if (params.alibi == 0u) { return score; }
  return fma(slope, f32(distance), score);
}
