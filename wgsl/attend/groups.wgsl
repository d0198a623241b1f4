// Scales of groups of a row's dims, with which its codes are multiplied when they are decoded. K_GROUP_QUADS and V_GROUP_QUADS
// are the quads of a group: 0 where a row has one scale, or none.

// Word of the pages in which the scale of a key's or a value's first group lies.
fn keyScaleWord(page: u32, kvHead: u32, key: u32) -> u32 {
  return 4u * (page + params.kScales + kvHead * params.kScaleHeadStride) + key % params.blockSize;
}

fn valueScaleWord(page: u32, kvHead: u32, key: u32) -> u32 {
  return 4u * (page + params.vScales + kvHead * params.vScaleHeadStride) + key % params.blockSize;
}

// Bits of a group's scale.
fn groupScale(firstWord: u32, stride: u32, group: u32) -> u32 {
  return pages[firstWord / 4u + group * stride][firstWord % 4u];
}

// Bits of the scales of the 4 quads of a unit of 16 codes. Dims that a row does not have are 0, whatever lies beside its scales.
fn unitScales(firstWord: u32, stride: u32, groupQuads: u32, unit: u32) -> vec4<u32> {
  if (groupQuads % 4u == 0u) {
    if (4u * unit >= QUADS) { return vec4<u32>(); }
    return vec4<u32>(groupScale(firstWord, stride, 4u * unit / groupQuads));
  }
  var scales = vec4<u32>();
  for (var i = 0u; i < 4u; i++) {
    if (4u * unit + i < QUADS) { scales[i] = groupScale(firstWord, stride, (4u * unit + i) / groupQuads); }
  }
  return scales;
}

fn isNanScale(scales: vec4<u32>) -> bool {
  return any((scales & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
}

// Whether a code's product with some scale may be no finite number: from 2^112 on, as no code stands for more than 2^16.
fn isLargeScale(scales: vec4<u32>) -> bool {
  return any((scales & vec4<u32>(0x7fffffffu)) >= vec4<u32>(0x77800000u));
}
