/** Prefill in ways that the test's device, or any device by itself, does not take: other rows for a workgroup, and stand-ins for f16 that it lacks. */
import { ok } from 'uvu/assert';
import { attentionError } from '../../src/files/compare.js';
import { type AttentionOptions, type AttendResult } from '../../src/index.js';
import { WebgpuBackend } from '../../src/webgpu/backend.js';
import type { Tuning } from '../../src/webgpu/tuning.js';
import { variantOf, type Variant } from '../../src/webgpu/variant.js';
import { assertSameBits } from '../bits.js';
import { callOf, fixture } from '../fixture.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { inF32, withShaders } from '../gpu/stand-in.js';
import { tuningOf } from '../gpu/tunings.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`prefill, ${adapterName}`, { skip: noAdapter });

const rows = (rowsPerWorkgroup: 32 | 64): Tuning => tuningOf({ prefill: { rowsPerWorkgroup } });
const plain = variantOf({ subgroupSize: 0, f16: false, unpacksF16: true });
let device: GPUDevice;
test.before(async () => {
  const adapter = (await gpu!.requestAdapter())!;
  // f32 in place of f16 takes more workgroup memory than any kernel may.
  const { maxComputeWorkgroupStorageSize } = adapter.limits;
  device = await adapter.requestDevice({ requiredLimits: { maxComputeWorkgroupStorageSize } });
  device.addEventListener('uncapturederror', (event) => {
    throw (event as GPUUncapturedErrorEvent).error;
  });
});
test.after(() => device.destroy());

interface Case {
  readonly headDim: number;
  readonly k?: 'e4m3fn' | 'e5m2';
  readonly v?: 'e4m3fn' | 'e5m2';
  readonly granularity?: 'tensor' | 'token-head';
  readonly options?: AttentionOptions;
}

const cases: readonly Case[] = [
  { headDim: 64 },
  { headDim: 128, k: 'e5m2', v: 'e4m3fn', options: { windowLeft: 70 } },
  { headDim: 80, k: 'e4m3fn', v: 'e5m2', granularity: 'tensor', options: { causal: false, softcap: 3 } },
  { headDim: 256, options: { causal: false, windowLeft: 20, windowRight: 90, sinks: Float32Array.of(0.5, -1, 2, 0) } },
];

/** Rows in blocks that are full and ones that are not, keys in tiles of which some are seen in part. */
async function attend(on: GPUDevice, variant: Variant, { headDim, k = 'e4m3fn', v = k, granularity, options }: Case): Promise<AttendResult> {
  const backend = new WebgpuBackend(on, variant, false);
  const [kvLens, qLens, kvHeads, queryHeads] = [[300, 17, 65], [140, 17, 20], 2, 4];
  const cache = await fixture(backend, random(headDim), { kvHeads, headDim, blockSize: 16, kvLens, k: { dtype: k, granularity }, v: { dtype: v, granularity } });
  const rows = qLens.reduce((a, b) => a + b, 0);
  const result = await backend.attend({ ...callOf(cache, qLens, random(61).normals(rows * queryHeads * headDim)), ...options });
  backend.dispose();
  return result;
}

for (const each of cases) {
  const name = `D${each.headDim} ${each.k ?? 'e4m3fn'}`;

  test(`${name}: the bits do not depend on how many rows a workgroup takes`, async () => {
    const [few, many] = [await attend(device, { ...plain, tuning: rows(32) }, each), await attend(device, { ...plain, tuning: rows(64) }, each)];
    assertSameBits(few.out, many.out);
    assertSameBits(few.lse, many.lse);
  });

  test(`${name}: f16, with f32 in its place`, async () => {
    const expected = await attend(device, plain, each);
    const standIn = withShaders(device, inF32);
    for (const prefillRows of [32, 64] as const) {
      const error = attentionError(await attend(standIn, { ...plain, f16: true, tuning: rows(prefillRows) }, each), expected, each.headDim);
      // The roundings are there.
      ok(error.out > 1e-6 && error.out <= 5e-3 && error.lse <= 5e-3, `${prefillRows} rows: out ${error.out}, lse ${error.lse}`);
    }
  }, { seconds: 120 });
}
