/** The GPU's bytes are the CPU's. */
import { equal, is, ok } from 'uvu/assert';
import { parseSafetensors, type SafetensorsFile } from '../../src/files/safetensors.js';
import { float32, uint16 } from '../../src/files/tensor.js';
import { pageLayout, recipes, wasmBackend, type AppendCall, type Backend, type FloatArray, type FloatDtype, type NhdTensors, type Recipe, type SideOptions } from '../../src/index.js';
import { usage } from '../../src/webgpu/constants.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { assertSameBits } from '../bits.js';
import { poison } from '../fixture.js';
import { golden, goldenFiles } from '../golden.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { testGoldenRecipes } from '../golden-recipes.js';
import { random } from '../random.js';
import { mixedRows } from '../rows.js';
import { suite } from '../suite.js';

const test = suite(`append, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const cpu = wasmBackend();

type Setting = Omit<AppendCall, 'pages' | 'slotMapping' | 'key' | 'value' | 'dtype'> & { readonly k: SideOptions; readonly v: SideOptions };

/** Rows as the keys and values of as many tokens and heads as there are, from pages that hold nothing but NaN. */
async function appendRows(on: Backend, x: FloatArray, dtype: FloatDtype, headDim: number, { k, v, ...call }: Setting): Promise<NhdTensors> {
  const rows = x.length / headDim;
  const kvHeads = rows % 4 === 0 ? 4 : rows % 3 === 0 ? 3 : 1;
  const tokens = rows / kvHeads;
  const blockSize = 7;
  const layout = pageLayout({ kvHeads, headDim, blockSize, k, v });
  const count = Math.ceil(tokens / blockSize) + 1;
  const pages = on.createPages(layout, count);
  await pages.import(poison(layout, count));
  // Backwards, and every eleventh token nowhere.
  const slotMapping = Int32Array.from({ length: tokens }, (_, i) => (i % 11 === 10 ? -1 : tokens - 1 - i));
  const { written, skipped } = await on.append({ ...call, pages, key: x, value: x, dtype, slotMapping });
  equal({ written, skipped }, { written: tokens - Math.floor(tokens / 11), skipped: Math.floor(tokens / 11) });
  const stored = await pages.export();
  pages.dispose();
  return stored;
}

async function assertSameBytes(x: FloatArray, dtype: FloatDtype, headDim: number, setting: Setting, what: string): Promise<void> {
  const [expected, actual] = [await appendRows(cpu, x, dtype, headDim, setting), await appendRows(backend, x, dtype, headDim, setting)];
  for (const [name, array] of Object.entries(expected)) if (array) assertSameBits(actual[name as keyof NhdTensors]!, array, `${what}, ${name}`);
}

function inputOf(file: SafetensorsFile): { x: FloatArray; from: FloatDtype; rowLength: number } {
  const tensor = file.tensors.get('x')!;
  const from = tensor.dtype.toLowerCase() as FloatDtype;
  return { x: from === 'f32' ? float32(tensor) : uint16(tensor), from, rowLength: tensor.shape[1] };
}

const guards: { readonly [guard: string]: Omit<Recipe, 'name' | 'quotient'> } = {
  raw: { amaxFloor: 0, scaleFloor: 0, scaleIfZero: 0 },
  one: { amaxFloor: 0, scaleFloor: 0, scaleIfZero: 1 },
  'eps1e-12': { amaxFloor: 1e-12, scaleFloor: 0, scaleIfZero: 0 },
};
const named: readonly Recipe[] = Object.values(recipes);
/** For int8; also with scales that are f16 when values are divided by them. */
const integerRules: readonly Recipe[] = [...named.filter(({ int8 }) => int8), { ...recipes.amax, name: 'f16', scalePrecision: 'f16' }];
const rules: readonly Recipe[] = [
  ...named.filter(({ int8Only }) => !int8Only),
  { ...recipes['vllm-token-head'], name: 'f16', scalePrecision: 'f16' },
  ...Object.entries(guards).flatMap(([name, bounds]) => (['divide', 'reciprocal', 'max-over-amax'] as const).map((quotient) => ({ name, ...bounds, quotient }))),
];
const quantized = { k: { dtype: 'e4m3fn' }, v: { dtype: 'e5m2' } } as const;

/** Scales of any magnitude. */
const scalesOf = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => [0.37 * 1.1 ** (i % 50), 1e-41, 3e38, 2 ** -20][i % 13 < 10 ? 0 : (i % 13) - 9]);

/** A group size that divides the head dimension: of some lanes, not always a power of two. */
const groupSizeOf = (headDim: number): number => [40, 32, 24].find((size) => headDim % size === 0) ?? 8;
const givenScale = { k: { dtype: 'e4m3fn', granularity: 'tensor' }, v: { dtype: 'e5m2', granularity: 'tensor' } } as const;

testGoldenRecipes(test, () => backend);

for (const path of goldenFiles('quantize')) {
  test(`${path}: every rule, and given scales`, async () => {
    const { x, from, rowLength } = inputOf(parseSafetensors(golden(path), path));
    for (const recipe of rules) await assertSameBytes(x, from, rowLength, { ...quantized, recipe }, `${recipe.name} ${recipe.quotient}`);
    for (const scale of [1, 0.0371, 1e-41, 3e38, 2 ** -149]) await assertSameBytes(x, from, rowLength, { ...givenScale, kScale: scale, vScale: scale }, `scale ${scale}`);
  });
}

for (const dtype of ['f32', 'f16', 'bf16'] as const) {
  test(`rows of ${dtype} of any magnitude, with NaN and infinities: every recipe, format and head dimension`, async () => {
    for (const headDim of [8, 24, 64, 80, 128, 256]) {
      const x = mixedRows(random(headDim), dtype, 240, headDim);
      for (const recipe of rules) await assertSameBytes(x, dtype, headDim, { ...quantized, recipe }, `${headDim}, ${recipe.name} ${recipe.quotient}`);
      for (const recipe of integerRules) await assertSameBytes(x, dtype, headDim, { k: { dtype: 'int8' }, v: { dtype: 'int8' }, recipe }, `${headDim}, int8, ${recipe.name} ${recipe.quotient}`);
      await assertSameBytes(x, dtype, headDim, { k: { dtype: 'int8', granularity: 'tensor' }, v: { dtype: 'int8' }, kScale: 0.037 }, `${headDim}, int8, given scale`);
      await assertSameBytes(x, dtype, headDim, { k: { dtype: 'e4m3fn', granularity: 'head' }, v: { dtype: 'e5m2', granularity: 'head' }, kScale: scalesOf(4), vScale: 0.5 }, `${headDim}, a scale for each head`);
      for (const [k, v] of [['int8', 'e4m3fn'], ['e5m2', 'int8']] as const) {
        const each = { k: { dtype: k, granularity: 'channel' }, v: { dtype: v, granularity: 'group', groupSize: groupSizeOf(headDim) } } as const;
        await assertSameBytes(x, dtype, headDim, { ...each, kScale: scalesOf(4 * headDim), recipe: 'vllm-token-head' }, `${headDim}, ${k} by channel, ${v} by group`);
        await assertSameBytes(x, dtype, headDim, { ...each, kScale: 3 }, `${headDim}, ${k} by channel with one scale, ${v} by group`);
      }
      const groups = { k: { dtype: 'e4m3fn', granularity: 'group', groupSize: 8 }, v: { dtype: 'int8', granularity: 'group', groupSize: headDim } } as const;
      await assertSameBytes(x, dtype, headDim, { ...groups, recipe: { k: 'max-over-amax', v: 'ferrum-int8' } }, `${headDim}, groups of 8 and of all`);
      await assertSameBytes(x, dtype, headDim, { k: { dtype: 'f32' }, v: { dtype: 'f16' } }, `${headDim}, unquantized`);
      await assertSameBytes(x, dtype, headDim, { k: { dtype: 'f16' }, v: { dtype: 'e4m3fn' } }, `${headDim}, f16 keys`);
    }
  });
}

test('all 65,536 f16 and bf16, and the golden points', async () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  for (const dtype of ['f16', 'bf16'] as const) await assertSameBytes(bits, dtype, 64, { ...givenScale }, dtype);
  const points = new Float32Array(golden('codec/f32.inputs.u32le.bin').buffer);
  const rows = new Float32Array(Math.ceil(points.length / 64) * 64);
  rows.set(points);
  await assertSameBytes(rows, 'f32', 64, { ...givenScale }, 'points');
});

test('keys and values may lie in GPU buffers, at an offset', async () => {
  const layout = pageLayout({ kvHeads: 2, headDim: 64, blockSize: 16 });
  const x = random(9).normals(20 * 128);
  const slotMapping = Int32Array.from({ length: 20 }, (_, i) => 31 - i);
  const results = [];
  const buffer = backend.device.createBuffer({ size: 512 + x.byteLength, usage: usage.storage | usage.copyDst });
  backend.device.queue.writeBuffer(buffer, 512, x);
  for (const input of [x, { buffer, offset: 512 }]) {
    const pages = backend.createPages(layout, 2);
    await backend.append({ pages, key: input, value: input, slotMapping });
    results.push(await pages.export());
    pages.dispose();
  }
  equal(results[1], results[0]);
  const pages = backend.createPages(layout, 2);
  const refused = async (change: Partial<Parameters<WebgpuBackend['append']>[0]>, message: RegExp): Promise<void> => {
    const error = await backend.append({ pages, key: { buffer, offset: 512 }, value: { buffer, offset: 512 }, slotMapping, ...change }).then(() => undefined, (reason: Error) => reason);
    ok(error && message.test(error.message), String(error));
  };
  await refused({ key: { buffer, offset: 16 } }, /"key" expected an offset that is a multiple of 256, got number 16/);
  await refused({ value: { buffer, offset: 768 } }, /"value" expected at least 10240 bytes, got 9984/);
  await refused({ dtype: 'f64' as 'f32' }, /"dtype" expected f32, f16 or bf16/);
  buffer.destroy();
  pages.dispose();
});

test('what does not fit is refused by name, and nothing is written', async () => {
  const layout = pageLayout({ kvHeads: 2, headDim: 8, blockSize: 4 });
  const pages = backend.createPages(layout, 2);
  const call: AppendCall = { pages, key: new Float32Array(32).fill(1), value: new Float32Array(32).fill(1), slotMapping: Int32Array.of(3, 5) };
  const before = await pages.export();
  const refused = async (change: Partial<AppendCall>, message: RegExp): Promise<void> => {
    const error = await backend.append({ ...call, ...change }).then(() => undefined, (reason: Error) => reason);
    ok(error && message.test(error.message), String(error));
    equal(await pages.export(), before);
  };
  await refused({ slotMapping: Int32Array.of(3, 8) }, /"slotMapping\[1\]" expected a slot below 8, got 8/);
  await refused({ slotMapping: Int32Array.of(5, 5) }, /expected a slot that no other token has, got 5 again/);
  await refused({ key: new Float32Array(31) }, /"key" expected 2 tokens × 2 heads × 8 = 32 elements, got 31/);
  await refused({ recipe: 'none' as 'amax' }, /"recipe" expected one of/);
  await refused({ kScale: 1 }, /"kScale" expected to be absent/);
  equal(await backend.append({ ...call, slotMapping: Int32Array.of(-1, -1) }), { written: 0, skipped: 2 });
  equal(await pages.export(), before);
  pages.dispose();
});

test('typed arrays may change as soon as append was called, also while a kernel is compiled', async () => {
  const other = await openVariant([]);
  const layout = pageLayout({ kvHeads: 1, headDim: 72, blockSize: 4 });
  const pages = other.createPages(layout, 3);
  const x = random(10).normals(2 * 72);
  const slotMapping = Int32Array.of(0, 1);
  const expected = pagesOnCpu(layout, x.slice());
  const done = other.append({ pages, key: x, value: x, slotMapping });
  x.fill(7);
  slotMapping.fill(9);
  await done;
  equal(await pages.export(), expected);
  is(pages.layout.k.tokenStride, 80);
  other.dispose();
});

test('given scales may change as well', async () => {
  const other = await openVariant([]);
  const side = { dtype: 'int8', granularity: 'channel' } as const;
  const layout = pageLayout({ kvHeads: 1, headDim: 72, blockSize: 4, k: side, v: side });
  const x = random(10).normals(2 * 72);
  const scale = Float32Array.from({ length: 72 }, (_, d) => 0.01 + d / 1000);
  const call = { key: x, value: x, slotMapping: Int32Array.of(0, 1) };
  const expected = cpu.createPages(layout, 3);
  cpu.append({ ...call, pages: expected, kScale: scale, vScale: scale });
  const pages = other.createPages(layout, 3);
  const done = other.append({ ...call, pages, kScale: scale, vScale: scale });
  scale.fill(9);
  await done;
  equal(await pages.export(), expected.export());
  other.dispose();
});

function pagesOnCpu(layout: Parameters<Backend['createPages']>[0], x: Float32Array): NhdTensors {
  const pages = cpu.createPages(layout, 3);
  cpu.append({ pages, key: x, value: x, slotMapping: Int32Array.of(0, 1) });
  return pages.export();
}
