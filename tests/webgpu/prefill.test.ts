/** Prefill in ways that no device takes by itself, or the test's device cannot: other rows for a workgroup, and stand-ins for f16 and matrices. */
import { equal, ok } from 'uvu/assert';
import { attentionError } from '../../src/files/compare.js';
import { pageLayout, type AttendResult, type AttentionOptions, type Granularity, type SideOptions } from '../../src/index.js';
import { WebgpuBackend } from '../../src/webgpu/backend.js';
import { multipliesMatrices } from '../../src/webgpu/probe.js';
import type { Tuning } from '../../src/webgpu/tuning.js';
import { matrixShapeOf, productsOf, variantOf, type Variant } from '../../src/webgpu/variant.js';
import { testPlacement } from '../attention-bits.js';
import { assertSameBits } from '../bits.js';
import { callOf, fixture } from '../fixture.js';
import { adapterName, gpu, inNode, noAdapter } from '../gpu/adapter.js';
import { inF32, withoutMatrices, withShaders } from '../gpu/stand-in.js';
import { tuningOf } from '../gpu/tunings.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const rowsOf = (rowsPerWorkgroup: 32 | 64): Tuning => tuningOf({ prefill: { rowsPerWorkgroup } });
const plain = variantOf({ subgroupSize: 0, f16: false, unpacksF16: true });

async function openDevice(): Promise<GPUDevice> {
  const adapter = (await gpu!.requestAdapter())!;
  // f32 in place of f16 takes more workgroup memory than any kernel may.
  const { maxComputeWorkgroupStorageSize } = adapter.limits;
  const device = await adapter.requestDevice({ requiredLimits: { maxComputeWorkgroupStorageSize } });
  device.addEventListener('uncapturederror', (event) => {
    throw (event as GPUUncapturedErrorEvent).error;
  });
  return device;
}

interface Case {
  readonly headDim: number;
  readonly k?: 'e4m3fn' | 'e5m2';
  readonly v?: 'e4m3fn' | 'e5m2';
  readonly granularity?: Granularity;
  readonly options?: AttentionOptions;
  /** Whether q is to be f16 exactly: in large scores, what it is rounded by is large. */
  readonly halfQueries?: boolean;
}

/** Rows in blocks that are full and ones that are not, keys in tiles of which some are seen in part. */
async function attend(device: GPUDevice, variant: Variant, { headDim, k = 'e4m3fn', v = k, granularity, options, halfQueries }: Case): Promise<AttendResult> {
  const backend = new WebgpuBackend(device, variant, false);
  const [kvLens, qLens, kvHeads, queryHeads] = [[300, 17, 65], [140, 17, 20], 2, 4];
  const scales = Float32Array.from({ length: kvHeads * headDim }, (_, i) => 0.02 * 1.1 ** (i % 31));
  const given = granularity === 'channel' ? { kScale: scales, vScale: scales } : {};
  const cache = await fixture(backend, random(headDim), { kvHeads, headDim, blockSize: 16, kvLens, k: { dtype: k, granularity }, v: { dtype: v, granularity }, ...given });
  const rows = qLens.reduce((a, b) => a + b, 0);
  const q = random(61).normals(rows * queryHeads * headDim);
  const result = await backend.attend({ ...callOf(cache, qLens, halfQueries ? q.map((x) => Math.round(x * 64) / 64) : q), ...options });
  backend.dispose();
  return result;
}

const alibiSlopes = Float32Array.of(0.5, 0.1, 0.02, 0);

const cases: readonly Case[] = [
  { headDim: 64 },
  { headDim: 128, k: 'e5m2', v: 'e4m3fn', options: { windowLeft: 70, alibiSlopes } },
  { headDim: 80, k: 'e4m3fn', v: 'e5m2', granularity: 'channel', options: { causal: false, softcap: 3 } },
  { headDim: 256, options: { causal: false, windowLeft: 20, windowRight: 90, sinks: Float32Array.of(0.5, -1, 2, 0) } },
];

const rows = suite(`prefill, ${adapterName}, rows of a workgroup`, { skip: noAdapter });
for (const each of cases) {
  rows(`D${each.headDim}: the bits do not depend on how many they are`, async () => {
    const device = await openDevice();
    const [few, many] = [await attend(device, { ...plain, tuning: rowsOf(32) }, each), await attend(device, { ...plain, tuning: rowsOf(64) }, each)];
    assertSameBits(few.out, many.out);
    assertSameBits(few.lse, many.lse);
    device.destroy();
  });
}

/** What of attention is no finite number, where keys, values and scales are not. */
async function kindsOfSpecial(device: GPUDevice, variant: Variant, dtype: 'e4m3fn' | 'e5m2', granularity: 'tensor' | 'token-head'): Promise<Float32Array[]> {
  const [tokens, kvHeads, headDim] = [70, 2, 16];
  const numbers = random(3);
  const [key, value] = [numbers.normals(tokens * kvHeads * headDim), numbers.normals(tokens * kvHeads * headDim)];
  const at = (j: number, head: number, d: number): number => (j * kvHeads + head) * headDim + d;
  key[at(50, 0, 3)] = NaN;
  value[at(20, 1, 5)] = NaN;
  value[at(45, 0, 7)] = -Infinity;
  value[at(60, 1, 2)] = NaN;
  const backend = new WebgpuBackend(device, variant, false);
  const layout = pageLayout({ kvHeads, headDim, blockSize: 8, k: { dtype, granularity }, v: { dtype, granularity } });
  const pages = backend.createPages(layout, 9);
  await backend.append({ pages, key, value, slotMapping: Int32Array.from({ length: tokens }, (_, i) => i) });
  const q = random(4).normals(40 * 4 * headDim);
  const { out, lse } = await backend.attend({ pages, q, blockTable: Int32Array.from({ length: 9 }, (_, i) => i), cuSeqlensQ: Int32Array.of(0, 40), seqUsedK: Int32Array.of(tokens) });
  backend.dispose();
  const kind = (x: number): number => (Number.isFinite(x) ? 0 : x);
  return [Float32Array.from(out, kind), Float32Array.from(lse, kind)];
}

/** Kernels with others in place of what the device lacks: nearly as exact as f32, and as visible where there is no number. */
function testStandIn(name: string, chosen: Omit<Variant, 'key' | 'tuning'>, rewrite: (code: string) => string, tried: readonly Case[], tuning?: Tuning): void {
  // It is the kernels that are tried, and a browser's compiler is Dawn's, too.
  if (!inNode) return;
  const test = suite(`prefill, ${adapterName}, ${name}, with others in place of them`, { skip: noAdapter });
  const variant = variantOf(chosen, tuning);
  let device: GPUDevice;
  let standIn: GPUDevice;
  let backend: WebgpuBackend;
  test.before(async () => {
    device = await openDevice();
    standIn = withShaders(device, rewrite);
    backend = new WebgpuBackend(standIn, variant, false);
  });
  test.after(() => {
    backend.dispose();
    device.destroy();
  });

  for (const each of tried) {
    test(`D${each.headDim} is within 5e-3`, async () => {
      const error = attentionError(await attend(standIn, variant, each), await attend(device, plain, each), each.headDim);
      // The roundings are there.
      ok(error.out > 1e-6 && error.out <= 5e-3 && error.lse <= 5e-3, `out ${error.out}, lse ${error.lse}`);
    }, { seconds: 120 });
  }
  testPlacement(test, () => backend);
  test('queries of 0, or nearly, see all keys alike', async () => {
    for (const dtype of ['e4m3fn', 'e5m2'] as const) {
      const cache = await fixture(backend, random(62), { kvHeads: 1, headDim: 64, blockSize: 16, kvLens: [80], k: { dtype }, v: { dtype } });
      const call = (q: number) => backend.attend(callOf(cache, [20], new Float32Array(20 * 64).fill(q)));
      const none = await call(0);
      ok(none.lse.every((lse, row) => Math.abs(lse - Math.log(61 + row)) < 1e-4), `${dtype}: ${none.lse}`);
      for (const q of [2 ** -117, 2 ** -126]) {
        const error = attentionError(await call(q), none, 64);
        ok(error.out <= 5e-3 && error.lse <= 5e-3, `${dtype}, ${q}: out ${error.out}, lse ${error.lse}`);
      }
      cache.pages.dispose();
    }
  }, { seconds: 120 });
  test('NaN and infinity reach those that see them', async () => {
    for (const [dtype, granularity] of [['e4m3fn', 'token-head'], ['e5m2', 'tensor'], ['e5m2', 'token-head']] as const) {
      const [out, lse] = await kindsOfSpecial(standIn, variant, dtype, granularity);
      const [expectedOut, expectedLse] = await kindsOfSpecial(device, plain, dtype, granularity);
      assertSameBits(out, expectedOut, `${dtype}, ${granularity}`);
      assertSameBits(lse, expectedLse, `${dtype}, ${granularity}, lse`);
      ok(out.some(Number.isNaN) && out.includes(0));
    }
  }, { seconds: 120 });
  const { matrix } = chosen;
  if (matrix) {
    test('a device that multiplies is found to', async () => {
      ok(await multipliesMatrices(standIn, matrix));
      ok(!(await multipliesMatrices(withShaders(device, (code) => rewrite(code).replace('+= left', '-= left')), matrix)), 'it multiplies wrongly');
      ok(!(await multipliesMatrices(device, matrix)), 'it does not know of matrices');
    });
  }
}

const f16 = { subgroupSize: 0, f16: true, unpacksF16: true };
testStandIn('f16', f16, inF32, cases);
testStandIn('f16, 32 rows', f16, inF32, cases.slice(0, 1), rowsOf(32));
// In f32, matrices of larger head dimensions would take more workgroup memory than SwiftShader has.
const matrixCases: readonly Case[] = [
  { headDim: 64 },
  { headDim: 56, k: 'e5m2', v: 'e4m3fn', options: { windowLeft: 70, alibiSlopes } },
  { headDim: 40, k: 'e4m3fn', v: 'e5m2', granularity: 'channel', options: { causal: false, softcap: 3 } },
  { headDim: 16, halfQueries: true, options: { softmaxScale: 4, sinks: Float32Array.of(0.5, -1, 2, 0) } },
];
testStandIn('16x16 matrices', { ...f16, matrix: { rows: 16, columns: 16, k: 16, subgroups: 4 } }, withoutMatrices, matrixCases);
testStandIn('8x8 matrices', { ...f16, matrix: { rows: 8, columns: 8, k: 8, subgroups: 4 } }, withoutMatrices, matrixCases.slice(1, 2));

const products = suite('what attention multiplies in');
products('sides whose groups have scales of their own: in f32, also where others are f16 or matrices', () => {
  const variant = variantOf({ ...f16, matrix: { rows: 16, columns: 16, k: 16, subgroups: 4 } });
  const of = (k: SideOptions, v: SideOptions): string[] => {
    const layout = pageLayout({ kvHeads: 1, headDim: 64, blockSize: 16, k, v });
    return [productsOf('decode', layout, variant), productsOf('prefill', layout, variant), productsOf('prefill', layout, variantOf(f16))];
  };
  const [plain, grouped] = [{}, { granularity: 'group', groupSize: 16 }] as const;
  equal(of(plain, plain), ['f16', 'matrix', 'f16']);
  equal(of({ granularity: 'channel' }, { granularity: 'head' }), ['f16', 'matrix', 'f16']);
  // Decode multiplies values in f32 always.
  equal(of(plain, grouped), ['f16', 'f32', 'f32']);
  equal(of(grouped, plain), ['f32', 'f32', 'f32']);
  equal(of({ dtype: 'f16' }, { dtype: 'f32' }), ['f32', 'f32', 'f32']);
});

const chosen = suite('which matrices prefill multiplies');
chosen('those of an adapter that fit its rows and keys, the largest of them', () => {
  const halves = (M: number, N: number, K: number) => ({ componentType: 'f16', resultComponentType: 'f32', M, N, K });
  const others = [{ ...halves(16, 16, 16), resultComponentType: 'f16' }, { ...halves(16, 16, 32), componentType: 'i8', resultComponentType: 'i32' }];
  const of = (size: number, ...configs: readonly ReturnType<typeof halves>[]) => matrixShapeOf({ subgroupMinSize: size, subgroupMaxSize: size, subgroupMatrixConfigs: configs });
  ok(of(32, ...others) === undefined && of(32, halves(16, 16, 64), halves(32, 16, 16)) === undefined);
  const { rows: m, columns, k, subgroups } = of(32, ...others, halves(16, 8, 8), halves(16, 16, 16), halves(16, 8, 16))!;
  ok(m === 16 && columns === 16 && k === 16 && subgroups === 4);
  ok(of(48, halves(16, 16, 16)) === undefined && matrixShapeOf({ subgroupMinSize: 16, subgroupMaxSize: 32, subgroupMatrixConfigs: [halves(8, 16, 16)] }) === undefined);
  ok(matrixShapeOf({}) === undefined);
});
