/** The real Transformers.js and its real `generate`, on models that are made here. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { equal, instance, is, match, not, ok, throws } from 'uvu/assert';
import { decode, quantize, wasmBackend } from '../../../src/index.js';
import { quantizedDynamicCache, type QuantizedDynamicCacheOptions } from '../../../src/transformers/index.js';
import { assertSameBits } from '../../bits.js';
import { definitions, halfOf, valueOf } from '../../reference/codec.js';
import { suite } from '../../suite.js';
import { seedOf, tableOf, type DecoderShape } from '../decoder.js';
import { examples, installed, typeCheck } from '../install.js';
import { makeModel, models, transformers, vocabulary } from './project.js';

const test = suite('Transformers.js');
const shape = { layers: 2, kvHeads: 2, headDim: 16 };
const { kvHeads, headDim } = shape;
const sides = ['key', 'value'] as const;
type Side = (typeof sides)[number];
type Type = DecoderShape['type'];
const types: readonly Type[] = ['float32', 'float16'];

let hf: any;
let Cache: ReturnType<typeof quantizedDynamicCache<any, any>>;
const loaded: { [type: string]: any } = {};

test.before(async () => {
  hf = await transformers();
  Cache = quantizedDynamicCache<any, any>(hf);
  for (const type of types) {
    makeModel(`tests/${type}`, { ...shape, type });
    loaded[type] = await hf.AutoModelForCausalLM.from_pretrained(`tests/${type}`, { dtype: 'fp32' });
  }
});

const ids = (rows: readonly (readonly number[])[]) => new hf.Tensor('int64', BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0].length]);

/** Answers of 4 tokens to rows of tokens, all of them. */
async function answer(type: Type, rows: readonly (readonly number[])[], cache: any): Promise<number[][]> {
  // Without a mask it takes all tokens for new ones.
  const output = await loaded[type].generate({ inputs: ids(rows), attention_mask: ids(rows.map((row) => row.map(() => 1))), past_key_values: cache, max_new_tokens: 4, eos_token_id: null });
  return (output.tolist() as bigint[][]).map((row) => row.map(Number));
}

const f16 = (x: number): number => valueOf(halfOf(x), definitions.f16);

/** There and back, by the codec: a scale for each token and head. */
function roundTrip(x: Float32Array, type: Type = 'float32'): Float32Array {
  const { codes, scales } = quantize(x, { rowLength: headDim });
  const values = decode(codes, 'e4m3fn').map((value, i) => value * scales[Math.floor(i / headDim)]);
  return type === 'float16' ? values.map(f16) : values;
}

/** What the model makes of tokens: [batch, kvHeads, tokens, headDim]. */
function statesOf(layer: number, side: Side, tokens: readonly (readonly number[])[]): Float32Array {
  const table = tableOf({ ...shape, vocabulary, type: 'float32' }, seedOf(layer, side));
  return Float32Array.from(tokens.flatMap((row) => Array.from({ length: kvHeads }, (_, head) => row.flatMap((id) => {
    const first = (id * kvHeads + head) * headDim;
    return [...table.subarray(first, first + headDim)];
  })).flat()));
}

/** An entry's values as f32. */
function valuesOf(tensor: any): Float32Array {
  if (tensor.type === 'float32') return tensor.data;
  return Float32Array.from(new Uint16Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.length), (bits) => valueOf(bits, definitions.f16));
}

/** All but the last token, which no call has been given yet. */
const cached = (rows: readonly (readonly number[])[]): number[][] => rows.map((row) => row.slice(0, -1));

function assertRests(cache: any, type: Type, tokens: readonly (readonly number[])[]): void {
  for (let layer = 0; layer < shape.layers; layer++) {
    for (const side of sides) {
      const tensor = cache[`past_key_values.${layer}.${side}`];
      instance(tensor, hf.Tensor);
      is(tensor.type, type);
      equal(tensor.dims, [tokens.length, kvHeads, tokens[0].length, headDim]);
      assertSameBits(valuesOf(tensor), roundTrip(statesOf(layer, side, tokens), type), `${layer}.${side}`);
    }
  }
}

for (const type of types) {
  test(`${type}: over three turns of two rows, all tokens come back as quantized once`, async () => {
    const cache = new Cache();
    instance(cache, hf.DynamicCache);
    let rows: number[][] = [[7, 8, 9, 10, 11], [40, 50, 60, 70, 80]];
    for (let turn = 0; turn < 3; turn++) {
      const said = await answer(type, rows, cache);
      is(cache.get_seq_length(), said[0].length - 1);
      await cache.quantize();
      is(cache.get_seq_length(), said[0].length - 1);
      is(cache.memory.tensors, 0);
      assertRests(cache, type, cached(said));
      // Read, but not used.
      await cache.quantize();
      rows = said.map((row) => [...row, 3 + turn, 5, 6]);
    }
    await cache.dispose();
  });

  test(`${type}: the next turn says what it says with a plain cache of the same floats`, async () => {
    const cache = new Cache();
    const first = await answer(type, [[20, 21, 22, 23]], cache);
    await cache.quantize();
    const plain = new hf.DynamicCache();
    plain.update(Object.fromEntries(Object.keys(cache).map((name) => [name, new hf.Tensor(type, cache[name].data.slice(), cache[name].dims)])));
    await cache.quantize();
    const next = [[...first[0], 30, 31]];
    equal(await answer(type, next, cache), await answer(type, next, plain));
    is(cache.get_seq_length(), plain.get_seq_length());
    equal(Object.keys(cache), Object.keys(plain));
    await cache.dispose();
  });
}

test('at rest it takes what its pages take', async () => {
  const cache = new Cache();
  const said = await answer('float32', [Array.from({ length: 60 }, (_, i) => i + 3)], cache);
  const tokens = said[0].length - 1;
  const floats = shape.layers * 2 * kvHeads * tokens * headDim * 4;
  equal(cache.memory, { quantized: 0, tensors: floats });
  await cache.quantize();
  // A byte each, and a scale for each token and head, whose runs are padded to 16 bytes.
  equal(cache.memory, { quantized: shape.layers * 2 * kvHeads * (tokens * headDim + Math.ceil(tokens / 4) * 16), tensors: 0 });
  // Reading one entry wakes its layer.
  ok(cache['past_key_values.1.key']);
  is(cache.memory.tensors, floats / shape.layers);
  await cache.quantize();
  is(cache.memory.tensors, 0);
  await cache.dispose();
  equal(cache.memory, { quantized: 0, tensors: 0 });
  equal(Object.keys(cache), []);
  // As new.
  await answer('float32', [[4, 5, 6]], cache);
  is(cache.get_seq_length(), 6);
});

test('caches share a backend, and give back what they take of it', async () => {
  const backend = wasmBackend();
  const sizes: number[] = [];
  for (let i = 0; i < 4; i++) {
    const cache = new Cache({ backend });
    await answer('float32', [Array.from({ length: 60 }, (_, j) => j + 3)], cache);
    await cache.quantize();
    sizes.push(cache.memory.quantized);
    await cache.dispose();
  }
  is(new Set(sizes).size, 1);
  // It is still the caller's.
  const cache = new Cache({ backend });
  await answer('float32', [[4, 5, 6]], cache);
  await cache.quantize();
  backend.dispose();
  throws(() => cache['past_key_values.0.key'], /disposed/);
});

const policies: readonly QuantizedDynamicCacheOptions[] = [
  { dtype: 'int8', recipe: 'compressed-tensors' },
  { dtype: 'e5m2' }, { dtype: 'int8' }, { dtype: { k: 'int8', v: 'e4m3fn' }, granularity: 'group', groupSize: 8 }, { granularity: 'tensor', scale: 0.01 },
  { granularity: 'channel', scale: { k: Float32Array.from({ length: kvHeads * headDim }, (_, i) => 0.001 * (i + 1)), v: 0.02 } }, { recipe: 'vllm-token-head', scalePrecision: 'f16' },
  { dtype: 'f16' }, { dtype: 'auto' },
];
test('the first of these policies is one whose values change when they are quantized again', () => {
  const once = (x: Float32Array) => {
    const { codes, scales } = quantize(x, { format: 'int8', recipe: 'compressed-tensors', rowLength: headDim });
    return Float32Array.from(codes, (code, i) => code * scales[Math.floor(i / headDim)]);
  };
  const values = once(statesOf(0, 'value', [[7, 8, 9, 10]]));
  not.equal(once(values), values);
});

for (const options of policies) {
  test(`${JSON.stringify({ ...options, scale: undefined })}: near what it was, and the same in later turns`, async () => {
    const cache = new Cache(options);
    let rows = await answer('float32', [[7, 8, 9, 10]], cache);
    await cache.quantize();
    const before = valuesOf(cache['past_key_values.0.value']).slice();
    const given = statesOf(0, 'value', cached(rows));
    ok(before.every((x, i) => Math.abs(x - given[i]) <= 0.3), 'near');
    is(before.some((x, i) => x !== given[i]), options.dtype !== 'auto' && options.dtype !== 'f16', 'rounded, where there are 8 bits');
    const tokens = rows[0].length - 1;
    rows = await answer('float32', [[...rows[0], 12, 13]], cache);
    await cache.quantize();
    const after = valuesOf(cache['past_key_values.0.value']);
    const all = rows[0].length - 1;
    for (let head = 0; head < kvHeads; head++) assertSameBits(after.slice(head * all * headDim, (head * all + tokens) * headDim), before.slice(head * tokens * headDim, (head + 1) * tokens * headDim));
    await cache.dispose();
  });
}

/** A tensor of numbers that follow each other. */
const tensor = (dims: number[], first = 0) => new hf.Tensor('float32', Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i + first)), dims);

test('other entries stay as they are', async () => {
  const cache = new Cache({ skipLayers: [1] });
  const entries = {
    'past_key_values.0.key': tensor([1, 2, 3, 8]), 'past_key_values.0.value': tensor([1, 2, 3, 8]),
    'past_key_values.1.key': tensor([1, 2, 3, 8]), 'past_key_values.1.value': tensor([1, 2, 3, 8]),
    'past_key_values.2.decoder.key': tensor([1, 2, 3, 8]), 'past_key_values.2.decoder.value': tensor([1, 2, 3, 8]),
    'past_key_values.2.encoder.key': tensor([1, 2, 9, 8]), 'past_key_values.2.encoder.value': tensor([1, 2, 9, 8]),
    'past_conv.3': tensor([1, 4, 3]), 'past_key_values.4.key_value': tensor([1, 3, 16]),
    'past_key_values.5.key': tensor([1, 2, 0, 8]), 'past_key_values.5.value': tensor([1, 2, 0, 8]),
  };
  cache.update(entries);
  await cache.quantize();
  const kept = Object.keys(entries).filter((name) => Object.getOwnPropertyDescriptor(cache, name)!.value);
  equal(kept, ['past_key_values.1.key', 'past_key_values.1.value', 'past_key_values.2.encoder.key', 'past_key_values.2.encoder.value', 'past_conv.3', 'past_key_values.4.key_value', 'past_key_values.5.key', 'past_key_values.5.value']);
  equal(Object.keys(cache), Object.keys(entries));
  for (const [name, given] of Object.entries(entries)) (kept.includes(name) ? is : not.equal)(cache[name], given);
  await cache.dispose();
});

test('a past that the model has changed is quantized anew', async () => {
  const cache = new Cache();
  const put = (first: number, tokens: number) => cache.update(Object.fromEntries(sides.map((side) => [`past_key_values.0.${side}`, tensor([1, 1, tokens, headDim], first)])));
  const expected = (first: number, tokens: number) => roundTrip(tensor([1, 1, tokens, headDim], first).data);
  for (const [first, tokens] of [[0, 5], [32, 5], [32, 4], [0, 1]]) {
    put(first, tokens);
    await cache.quantize();
    assertSameBits(cache['past_key_values.0.key'].data, expected(first, tokens));
    assertSameBits(cache['past_key_values.0.value'].data, expected(first, tokens));
    await cache.quantize();
    is(cache.memory.quantized, 2 * (tokens * headDim + Math.ceil(tokens / 4) * 16), 'and what was there is gone');
  }
  await cache.dispose();
});

test('tensors on a GPU are read back, and disposed of', async () => {
  const disposed: string[] = [];
  const onGpu = (name: string) => {
    const data = tensor([1, 1, 2, 8]).data;
    return Object.create(hf.Tensor.prototype, {
      dims: { value: [1, 1, 2, 8] }, type: { value: 'float32' }, location: { value: 'gpu-buffer' },
      data: { get: () => { throw new Error('The data is not on CPU.'); } },
      ort_tensor: { value: { getData: async () => data } }, dispose: { value: () => disposed.push(name) },
    });
  };
  const cache = new Cache();
  cache.update({ 'past_key_values.0.key': onGpu('key'), 'past_key_values.0.value': onGpu('value'), 'past_conv.0': onGpu('conv') });
  await cache.quantize();
  equal(disposed, ['key', 'value']);
  assertSameBits(cache['past_key_values.0.key'].data, roundTrip8(tensor([1, 1, 2, 8]).data));
  await cache.dispose();
  equal(disposed, ['key', 'value', 'conv']);
});

function roundTrip8(x: Float32Array): Float32Array {
  const { codes, scales } = quantize(x, { rowLength: 8 });
  return decode(codes, 'e4m3fn').map((value, i) => value * scales[Math.floor(i / 8)]);
}

test('what does not fit is refused by name, and nothing is quantized', async () => {
  const refused = async (entries: object, options: QuantizedDynamicCacheOptions, expected: RegExp) => {
    const cache = new Cache(options);
    cache.update({ 'past_key_values.0.key': tensor([1, 2, 3, 16]), 'past_key_values.0.value': tensor([1, 2, 3, 16]), ...entries });
    const error = await cache.quantize().then(() => undefined, (reason: Error) => reason);
    match(String(error), expected);
    is(cache.memory.quantized, 0);
  };
  const pair = (key: object, value = key) => ({ 'past_key_values.1.key': key, 'past_key_values.1.value': value });
  await refused(pair(tensor([1, 2, 3, 12])), {}, /RangeError: past_key_values\.1\.key: "headDim" expected a multiple of 8/);
  await refused(pair(tensor([1, 2, 3, 16]), tensor([1, 2, 3, 8])), {}, /"past_key_values\.1\.value" expected float32 \[1, 2, 3, 16\], as the keys, got float32 \[1, 2, 3, 8\]/);
  await refused(pair(tensor([2, 3, 16])), {}, /"past_key_values\.1\.key" expected dims \[batch, kvHeads, tokens, headDim\], got \[2, 3, 16\]/);
  await refused(pair(ids([[1, 2]])), {}, /"past_key_values\.1\.key" expected a tensor of float32 or float16, got int64/);
  await refused({}, { granularity: 'group', groupSize: 24 }, /"k\.groupSize" expected a multiple of 8 that divides headDim \(16\), got number 24/);
  throws(() => new Cache({ dtype: 'fp4' as 'fp8' }), /"k\.dtype" expected one of/);
  throws(() => new Cache({ dtyp: 'int8' } as never), /"dtyp" expected the name of an option, got an unknown one: is "dtype" meant\?/);
  throws(() => new Cache({ blockSize: 16 } as never), /"blockSize" expected the name of an option, got an unknown one/);
  throws(() => new Cache({ backend: null } as never), /"backend" expected a backend/);
  throws(() => new Cache({ skipLayers: 3 as unknown as number[] }), /"skipLayers" expected an array/);
  throws(() => quantizedDynamicCache({ DynamicCache: hf.DynamicCache } as never), /"Tensor" expected the class of Transformers\.js, got undefined/);
});

test('its types fit those of the package', () => {
  typeCheck(installed('transformers'), `
    import { AutoModelForCausalLM, DynamicCache, Tensor } from '@huggingface/transformers';
    import { quantizedDynamicCache, type CacheMemory } from 'fp8-kv/transformers';
    const Quantized = quantizedDynamicCache({ DynamicCache, Tensor });
    const cache = new Quantized({ dtype: { k: 'fp8_e4m3', v: 'int8' }, skipLayers: [0] });
    const plain: DynamicCache = cache;
    const model = await AutoModelForCausalLM.from_pretrained('any');
    await model.generate({ inputs: new Tensor('int64', [1n], [1, 1]), past_key_values: cache });
    await cache.quantize();
    const memory: CacheMemory = cache.memory;
    const bytes: number = memory.quantized + memory.tensors + cache.get_seq_length() + plain.get_seq_length();
    const entry: Tensor = cache['past_key_values.0.key'];
    // @ts-expect-error
    new Quantized({ dtype: 'fp4' });
    export { bytes, entry };
  `);
});

test('the example of docs/adapters.md runs', () => {
  const folder = installed('transformers');
  const [code] = examples();
  makeModel('onnx-community/Qwen3-0.6B-ONNX', { ...shape, headDim: 64, type: 'float32' });
  writeFileSync(join(folder, 'setup.mjs'), `import { env } from '@huggingface/transformers';\nenv.allowRemoteModels = false;\nenv.localModelPath = ${JSON.stringify(models)};\n`);
  writeFileSync(join(folder, 'example.mjs'), code);
  const printed = execFileSync(process.execPath, ['--import', './setup.mjs', 'example.mjs'], { cwd: folder, encoding: 'utf8' });
  match(printed, /^\d+ tokens in \d+ bytes, 0 bytes of tensors\n\d+ tokens in \d+ bytes, 0 bytes of tensors\n$/);
});
