// Pages → a tensor of f32 or f16 whose heads come before its tokens: each code times its scale. Exact: the f32 next to the
// product, ties to even, denormals kept, as on the CPU; f16 is that f32 rounded once more. Integers only, since WGSL promises
// products neither a rounding mode nor denormals.
//
// DequantizeParams is `gpuDequantizeParams` of src/layout.ts; places and strides in a page are in 4-byte words. Constants are:
//   WORKGROUP     invocations per workgroup
//   FORMAT        of the codes; FORMAT_… its numbers
//   MANTISSA_BITS, FIRST_EXPONENT, LARGEST   of an 8-bit floating-point format, as its file has them
//   TO_F16        whether the tensor is one of f16

@group(0) @binding(0) var<uniform> params: DequantizeParams;
// slots: (batch, positions), page · blockSize + place; negative: nothing is there, which reads as 0
@group(0) @binding(1) var<storage, read> slots: array<i32>;
@group(0) @binding(2) var<storage, read> pages: array<u32>;
// Bits of the given scales.
@group(0) @binding(3) var<storage, read> givenScales: array<u32>;
// tensor: (batch, kvHeads, positions, headDim)
@group(0) @binding(4) var<storage, read_write> tensor: array<u32>;

const SIGN: u32 = 0x80000000u;
const INFINITY: u32 = 0x7f800000u;
const NAN: u32 = 0x7fc00000u;

// A finite code: mantissa · 2^exponent.
struct Number {
  mantissa: u32,
  exponent: i32,
}

fn numberOf(code: u32) -> Number {
  if (FORMAT == FORMAT_INT8) {
    return Number(u32(abs(i32(code << 24u) >> 24u)), 0);
  }
  let magnitude = code & 0x7fu;
  let exponent = magnitude >> MANTISSA_BITS;
  let leading = select(0u, 1u << MANTISSA_BITS, exponent > 0u);
  return Number((magnitude & ((1u << MANTISSA_BITS) - 1u)) | leading, i32(max(exponent, 1u) + FIRST_EXPONENT) - i32(128u + MANTISSA_BITS));
}

// mantissa · 2^exponent · scale, of magnitudes. A mantissa has 8 bits, that of a scale 24: their product fits.
fn productOf(number: Number, scale: u32) -> u32 {
  let leading = select(0u, 0x800000u, scale >= 0x800000u);
  let product = number.mantissa * ((scale & 0x7fffffu) | leading);
  if (product == 0u) {
    return 0u;
  }
  // product · 2^least
  let least = number.exponent + i32(max(scale >> 23u, 1u)) - 150;
  // To 24 bits, or to multiples of the smallest denormal.
  let shift = max(i32(firstLeadingBit(product)) - 23, -149 - least);
  if (shift > 31) {
    return 0u;
  }
  let right = u32(max(shift, 1));
  let rounded = (product + (1u << (right - 1u)) - 1u + ((product >> right) & 1u)) >> right;
  let bits = select(rounded, product << u32(max(-shift, 0)), shift <= 0);
  // The leading one, which denormals lack, counts as one more exponent.
  return min((u32(least + shift + 149) << 23u) + bits, INFINITY);
}

// Bits of a code times a scale.
fn dequantizeCode(code: u32, scale: u32) -> u32 {
  let sign = ((code << 24u) ^ scale) & SIGN;
  let size = scale & ~SIGN;
  let magnitude = code & 0x7fu;
  if (size > INFINITY || (FORMAT != FORMAT_INT8 && magnitude > LARGEST && (FORMAT != FORMAT_E5M2 || magnitude > LARGEST + 1u))) {
    return NAN;
  }
  let number = numberOf(code);
  let infinite = FORMAT == FORMAT_E5M2 && magnitude > LARGEST;
  if (infinite || size == INFINITY) {
    return select(sign | INFINITY, NAN, size == 0u || number.mantissa == 0u);
  }
  return sign | productOf(number, size);
}

// The 4 values of a quad, as f32.
fn valuesOf(slot: u32, head: u32, quad: u32) -> vec4<u32> {
  let page = slot / params.blockSize * params.pageWords;
  let token = slot % params.blockSize;
  let row = page + params.codes + head * params.headStride + token * params.tokenStride;
  if (FORMAT == FORMAT_F32) {
    let first = row + 4u * quad;
    return vec4<u32>(pages[first], pages[first + 1u], pages[first + 2u], pages[first + 3u]);
  }
  if (FORMAT == FORMAT_F16) {
    let low = pages[row + 2u * quad];
    let high = pages[row + 2u * quad + 1u];
    return vec4<u32>(widenF16(low & 0xffffu), widenF16(low >> 16u), widenF16(high & 0xffffu), widenF16(high >> 16u));
  }
  let word = pages[row + quad];
  var scales = vec4<u32>();
  if (params.scales != 0u) {
    scales = vec4<u32>(pages[page + params.scales + head * params.scaleHeadStride + 4u * quad / params.groupSize * params.scaleGroupStride + token]);
  } else {
    let first = head * params.givenHeadStride + 4u * quad * params.givenDimStride;
    let step = params.givenDimStride;
    scales = vec4<u32>(givenScales[first], givenScales[first + step], givenScales[first + 2u * step], givenScales[first + 3u * step]);
  }
  return vec4<u32>(
    dequantizeCode(word & 0xffu, scales.x),
    dequantizeCode((word >> 8u) & 0xffu, scales.y),
    dequantizeCode((word >> 16u) & 0xffu, scales.z),
    dequantizeCode(word >> 24u, scales.w),
  );
}

// An invocation makes 4 values. Workgroups are spread over x and y, since each may count to 65535 only.
@compute @workgroup_size(WORKGROUP)
fn dequantize(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) invocation: u32) {
  let i = (group.x + group.y * groups.x) * WORKGROUP + invocation;
  let quads = params.headDim / 4u;
  let row = i / quads;
  if (row >= params.rows) {
    return;
  }
  let position = row % params.positions;
  let head = row / params.positions % params.kvHeads;
  let slot = slots[row / params.positions / params.kvHeads * params.positions + position];
  var x = vec4<u32>();
  if (slot >= 0) {
    x = valuesOf(u32(slot), head, i % quads);
  }
  if (TO_F16) {
    tensor[2u * i] = narrowF16(x.x) | (narrowF16(x.y) << 16u);
    tensor[2u * i + 1u] = narrowF16(x.z) | (narrowF16(x.w) << 16u);
    return;
  }
  tensor[4u * i] = x.x;
  tensor[4u * i + 1u] = x.y;
  tensor[4u * i + 2u] = x.z;
  tensor[4u * i + 3u] = x.w;
}
