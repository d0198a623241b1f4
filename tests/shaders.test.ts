/** Every kernel in every variant is accepted by Dawn's compiler, without a warning; its null adapter has every feature. */
import { equal, is, ok } from 'uvu/assert';
import { readdirSync, readFileSync } from 'node:fs';
import { pageLayout, type Format, type PageLayout, type SideOptions } from '../src/index.js';
import { appendKernel, checkKernel, decodeKernel, dequantizeKernel, encodeKernel, gatherKernel, matrixProbe, mergeKernel, mergeStatesKernel, prefillKernel, type Kernel } from '../src/webgpu/kernels.js';
import { tuningChoices } from '../src/webgpu/tuning.js';
import { PREFILL_WORKGROUP, variantOf } from '../src/webgpu/variant.js';
import { tuningOf } from './gpu/tunings.js';
import { suite } from './suite.js';

const test = suite('shaders');
const allFormats: readonly Format[] = ['e4m3fn', 'e5m2', 'int8', 'f16', 'f32'];
const variants = [0, 4, 32].flatMap((subgroupSize) => [false, true].flatMap((f16) => [false, true].map((unpacksF16) => variantOf({ subgroupSize, f16, unpacksF16 }))));

const name = 'webgpu';
const { create } = (await import(name)) as { create(flags: string[]): GPU };
/** Kept: what is made by it does not survive it. */
const nullGpu = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);

let device: GPUDevice;
test.before(async () => {
  const adapter = await nullGpu.requestAdapter();
  device = await adapter!.requestDevice({ requiredFeatures: ['shader-f16', 'subgroups', 'chromium-experimental-subgroup-matrix' as GPUFeatureName] });
});

async function assertUnderstood(key: string, code: string): Promise<GPUShaderModule> {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  const { messages } = await module.getCompilationInfo();
  equal(messages.map(({ type, lineNum, message }) => `${type} in line ${lineNum}, ${code.split('\n')[lineNum - 1]}: ${message}`), [], key);
  is((await device.popErrorScope())?.message, undefined, key);
  return module;
}

async function assertCompiles(kernel: Kernel): Promise<void> {
  const module = await assertUnderstood(kernel.key, kernel.source());
  device.pushErrorScope('validation');
  // The null adapter refuses most that WebGPU's default limits do not allow.
  await device.createComputePipelineAsync({ layout: 'auto', compute: { module, entryPoint: kernel.entryPoint } });
  is((await device.popErrorScope())?.message, undefined, kernel.key);
}

for (const variant of variants) {
  test(`attention, ${variant.key}`, async () => {
    for (const [i, k] of allFormats.entries()) {
      for (const v of [k, allFormats[(i + 1) % allFormats.length]]) {
        for (const headDim of [8, 72, 256]) {
          const layout = pageLayout({ kvHeads: 2, headDim, blockSize: 16, k: { dtype: k }, v: { dtype: v } }, 'token-major');
          for (const group of headDim === 72 ? [1, 2, 3, 8] : [8]) await assertCompiles(decodeKernel(layout, group, variant));
          for (const rowsPerWorkgroup of tuningChoices.rowsPerWorkgroup) await assertCompiles(prefillKernel(layout, { ...variant, tuning: tuningOf({ prefill: { rowsPerWorkgroup } }) }));
        }
      }
    }
  });
}

/** A head dimension, and the dims of each group of K and of V; 0: a row has one scale. */
const grouped = [[8, 8, 0], [72, 24, 8], [128, 0, 32], [256, 64, 256]];

for (const variant of variants) {
  test(`attention, ${variant.key}, with scales of groups`, async () => {
    for (const [headDim, kGroup, vGroup] of grouped) {
      for (const [k, v] of [['e4m3fn', 'int8'], ['int8', 'e5m2']] as const) {
        const side = (dtype: Format, groupSize: number): SideOptions => (groupSize > 0 ? { dtype, granularity: 'group', groupSize } : { dtype });
        const layout = pageLayout({ kvHeads: 2, headDim, blockSize: 16, k: side(k, kGroup), v: side(v, vGroup) }, 'token-major');
        for (const kernel of [decodeKernel(layout, 4, variant), prefillKernel(layout, variant), appendKernel(layout)]) await assertCompiles(kernel);
      }
    }
  });
}

test('scales of groups and channels have kernels of their own, those of tensors and heads have not', () => {
  const keysOf = (k: SideOptions, v: SideOptions = {}): string[] => {
    const layout = pageLayout({ kvHeads: 2, headDim: 64, blockSize: 16, k, v }, 'token-major');
    return [appendKernel, (each: PageLayout) => decodeKernel(each, 4, variants[0]), (each: PageLayout) => prefillKernel(each, variants[0])].map((kernelOf) => kernelOf(layout).key);
  };
  const plain = keysOf({});
  equal(keysOf({ granularity: 'tensor' }, { granularity: 'head' }), plain);
  const [append, ...attention] = keysOf({ granularity: 'channel' });
  equal(attention, plain.slice(1));
  const keys = [plain[0], append, keysOf({}, { granularity: 'channel' })[0]];
  for (const groupSize of [8, 16, 64]) {
    const side: SideOptions = { granularity: 'group', groupSize };
    keys.push(...keysOf(side), ...keysOf({}, side));
  }
  is(new Set(keys).size, 3 + 3 * 2 * 3);
});

const shapes = [[16, 16, 16, 4], [16, 8, 16, 4], [8, 8, 8, 4], [8, 16, 16, 8], [32, 32, 16, 1]];
for (const [rows, columns, k, subgroups] of shapes) {
  const matrix = { rows, columns, k, subgroups };
  test(`prefill by matrices, ${rows}x${columns}x${k}`, async () => {
    const variant = variantOf({ subgroupSize: PREFILL_WORKGROUP / subgroups, f16: true, unpacksF16: true, matrix });
    await assertUnderstood('probe', matrixProbe(matrix));
    for (const [k, v] of [['e4m3fn', 'e4m3fn'], ['e5m2', 'e4m3fn']] as const) {
      for (const headDim of [8, 72, 128]) {
        const kernel = prefillKernel(pageLayout({ kvHeads: 2, headDim, blockSize: 16, k: { dtype: k }, v: { dtype: v } }, 'token-major'), variant);
        // No pipeline: the null adapter has no more workgroup memory than WebGPU's default.
        await assertUnderstood(kernel.key, kernel.source());
      }
    }
  });
}

test('append, merge, check and encode', async () => {
  const keys = new Set<string>();
  for (const headDim of [8, 16, 24, 64, 72, 128, 256]) {
    for (const k of allFormats) {
      for (const v of allFormats) {
        const kernel = appendKernel(pageLayout({ kvHeads: 1, headDim, blockSize: 1, k: { dtype: k }, v: { dtype: v } }));
        keys.add(kernel.key);
        await assertCompiles(kernel);
      }
    }
    const layout = pageLayout({ kvHeads: 1, headDim, blockSize: 1 }, 'token-major');
    for (const group of [1, 2, 4, 71]) await assertCompiles(mergeKernel(layout, group));
  }
  is(keys.size, allFormats.length ** 2 * 6, 'a kernel for each pair of formats and power of two of head dimensions');
  await assertCompiles(checkKernel);
  await assertCompiles(mergeStatesKernel);
  for (const format of ['e4m3fn', 'e5m2'] as const) await assertCompiles(encodeKernel(format));
  await assertCompiles(gatherKernel);
  for (const format of allFormats) for (const to of ['f32', 'f16'] as const) await assertCompiles(dequantizeKernel(format, to));
});

test('no variable of a function goes without a value: in a loop it would keep the last round\'s on some devices', () => {
  const files = readdirSync('wgsl', { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.wgsl'));
  ok(files.length > 10);
  for (const file of files) {
    const bare = readFileSync(`wgsl/${file}`, 'utf8').match(/^ +var \w+(: [^=\n]+)?;$/gm);
    equal(bare, null, file);
  }
});
