/** What a device does where WGSL leaves it open: tried out once, when a backend is made. */
import { MAP_READ, usage } from './constants.js';
import { matrixProbe } from './kernels.js';
import type { MatrixShape } from './variant.js';

const SUBGROUP_LANES = 128;

/** Runs a shader of one workgroup that fills `words` words at binding 0. */
async function runProbe(device: GPUDevice, code: string, words: number): Promise<Uint32Array> {
  const made: GPUBuffer[] = [];
  const buffer = (flags: number): GPUBuffer => {
    const each = device.createBuffer({ label: 'fp8-kv probe', size: words * 4, usage: flags });
    made.push(each);
    return each;
  };
  try {
    const module = device.createShaderModule({ label: 'fp8-kv probe', code });
    const pipeline = await device.createComputePipelineAsync({ label: 'fp8-kv probe', layout: 'auto', compute: { module, entryPoint: 'probe' } });
    const [results, readback] = [buffer(usage.storage | usage.copySrc), buffer(usage.mapRead | usage.copyDst)];
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer: results } }] }));
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(results, 0, readback, 0, words * 4);
    device.queue.submit([encoder.finish()]);
    await readback.mapAsync(MAP_READ);
    return new Uint32Array(readback.getMappedRange().slice(0));
  } finally {
    for (const each of made) each.destroy();
  }
}

/**
 * Whether `unpack2x16float` gives all finite f16 exactly, subnormal ones too, wherever a kernel may compute with them.
 * Those with 7 bits of mantissa are tried, among which are the 8-bit formats' as the kernels shift them.
 */
export async function unpacksF16(device: GPUDevice): Promise<boolean> {
  const code = `
    @group(0) @binding(0) var<storage, read_write> results: array<f32>;
    @compute @workgroup_size(64) fn probe(@builtin(local_invocation_index) lane: u32) {
      // 2^-24 … times 2^40, so that what was flushed is 0 and what was not is no subnormal f32 either.
      for (var i = lane; i < 4096u; i += 64u) { results[i] = unpack2x16float(i << 3u).x * 0x1p40; }
    }`;
  const results = await runProbe(device, code, 4096);
  const values = new Float32Array(results.buffer);
  for (let i = 0; i < 0x7c00 >> 3; i++) {
    const half = i << 3;
    const [exponent, mantissa] = [half >> 10, half & 0x3ff];
    const value = exponent === 0 ? mantissa * 2 ** -24 : (1024 + mantissa) * 2 ** (exponent - 25);
    if (values[i] !== value * 2 ** 40) return false;
  }
  return true;
}

/**
 * How many invocations make a subgroup at least, where they do so in the order of their index; else 0. A device may have
 * several sizes and choose one for each kernel: what it does for the kernel that tries says nothing of others' size.
 */
export async function subgroupSize(device: GPUDevice): Promise<number> {
  if (!device.features.has('subgroups')) return 0;
  const code = `
    enable subgroups;
    @group(0) @binding(0) var<storage, read_write> results: array<vec4<u32>>;
    @compute @workgroup_size(${SUBGROUP_LANES}) fn probe(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_invocation_id) id: u32, @builtin(subgroup_size) size: u32) {
      results[lane] = vec4<u32>(size, id, subgroupMax(lane), subgroupAdd(lane));
    }`;
  const results = await runProbe(device, code, 4 * SUBGROUP_LANES);
  const [size] = results;
  if (size < 4 || SUBGROUP_LANES % size !== 0) return 0;
  for (let lane = 0; lane < SUBGROUP_LANES; lane++) {
    const first = lane - (lane % size);
    const expected = [size, lane % size, first + size - 1, size * first + (size * (size - 1)) / 2];
    if (expected.some((value, i) => results[4 * lane + i] !== value)) return 0;
  }
  return Math.min(size, device.adapterInfo?.subgroupMinSize ?? 4);
}

/** Whether matrices of this shape are what the kernels take them for: compiled, multiplied and added up without an error. */
export async function multipliesMatrices(device: GPUDevice, shape: MatrixShape): Promise<boolean> {
  const { rows, columns, k, subgroups } = shape;
  device.pushErrorScope('validation');
  // Other versions of the experimental feature speak other dialects: a shader that is not understood is no error of ours.
  const results = await runProbe(device, matrixProbe(shape), subgroups * rows * columns).catch(() => undefined);
  if ((await device.popErrorScope()) || !results) return false;
  const sums = new Float32Array(results.buffer);
  const small = (row: number, column: number, period: number): number => ((3 * row + 5 * column) % period) - Math.floor(period / 2);
  return sums.every((sum, i) => {
    const [row, column] = [Math.floor(i / columns) % rows, i % columns];
    let expected = 0;
    for (let n = 0; n < k; n++) expected += small(row, n, 7) * small(column, n, 11) + small(row, n, 9) * small(n, column, 13);
    return sum === expected;
  });
}

/**
 * Whether the device has f16, keeps subnormal ones, as which kernels take small codes, and its compiler takes two of them out of
 * a word: Naga, as of version 25, does not.
 */
export async function hasF16(device: GPUDevice): Promise<boolean> {
  if (!device.features.has('shader-f16')) return false;
  const code = `
    enable f16;
    @group(0) @binding(0) var<storage, read_write> results: array<f32>;
    @compute @workgroup_size(64) fn probe(@builtin(local_invocation_index) lane: u32) {
      // Numbers with 2 bits of mantissa, times themselves; then subnormal ones, times 1024.
      for (var i = lane; i < 128u; i += 64u) {
        let x = bitcast<vec2<f16>>((i << 8u) | (i << 24u));
        results[i] = f32(x.x * x.y);
        results[128u + i] = f32(bitcast<vec2<f16>>(i << 3u).x * 1024.0);
      }
    }`;
  device.pushErrorScope('validation');
  const results = await runProbe(device, code, 256).catch(() => undefined);
  if ((await device.popErrorScope()) || !results) return false;
  const values = new Float32Array(results.buffer);
  // Squares that are normal f16, too.
  const squares = values.subarray(0, 128).every((square, i) => i < 32 || i > 90 || square === ((4 + (i % 4)) * 2 ** ((i >> 2) - 17)) ** 2);
  return squares && values.subarray(128).every((subnormal, i) => subnormal === i * 2 ** -11);
}
