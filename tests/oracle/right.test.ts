/** Whatever the data, what is right is equal and gets no name; what no known kernel makes gets none either. */
import fc from 'fast-check';
import { equal, is, match, ok } from 'uvu/assert';
import { readAppendCase, runAppendCase } from '../../src/files/append-case.js';
import { parseSafetensors, serializeSafetensors } from '../../src/files/safetensors.js';
import { float32, int32, type Tensor } from '../../src/files/tensor.js';
import { allowedPolicies, wasmBackend, type FloatDtype } from '../../src/index.js';
import { checkCase, checkCodes, generateAppendCase, generateAttendCase, generateCodes, type AppendCheck } from '../../src/oracle/index.js';
import { tensor } from '../cli/harness.js';
import { random, type Random } from '../random.js';
import { suite } from '../suite.js';
import { faults, faulty } from './faulty.js';

const test = suite('oracle, right and wrong data');
const backend = wasmBackend();
const dtypes = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;

/** Bits of one value, by what data may be like. */
const contents: { readonly [kind: string]: (numbers: Random, dtype: FloatDtype) => () => number } = {
  'all zeros': () => () => 0,
  'zeros of both signs': (numbers, dtype) => () => numbers.integer(2) * 2 ** (dtype === 'f32' ? 31 : 15),
  'one value': (numbers) => ((bits) => () => bits)(numbers.bits()),
  'two values': (numbers) => ((bits) => () => bits[numbers.integer(2)])([numbers.bits(), numbers.bits()]),
  'any bits': (numbers) => () => numbers.bits(),
  'ordinary numbers': (numbers, dtype) => () => {
    const [bits] = new Uint32Array(Float32Array.of(numbers.normal()).buffer);
    return dtype === 'f32' ? bits : dtype === 'bf16' ? bits >>> 16 : 0x2c00 + numbers.integer(0x1800) + 0x8000 * numbers.integer(2);
  },
};

function values(numbers: Random, kind: string, dtype: FloatDtype, shape: readonly number[]): Tensor {
  const next = contents[kind](numbers, dtype);
  const length = shape.reduce((a, b) => a * b, 1);
  const bits = dtype === 'f32' ? new Uint32Array(length) : new Uint16Array(length);
  return tensor(dtypes[dtype], shape, bits.map(() => next()));
}

const policies = allowedPolicies().flatMap(({ format, granularity, scales, recipes }) => (recipes.length > 0 ? recipes : [undefined]).map((recipe) => ({ format, granularity, scales, recipe })));

const cases = fc.record({
  policy: fc.constantFrom(...policies), dtype: fc.constantFrom('f32', 'f16', 'bf16'), kind: fc.constantFrom(...Object.keys(contents)), seed: fc.nat(),
  tokens: fc.integer({ min: 0, max: 5 }), heads: fc.integer({ min: 1, max: 3 }), headDim: fc.constantFrom(8, 16, 24), blockSize: fc.integer({ min: 1, max: 4 }), same: fc.boolean(),
});

test('appends of whatever data, also of keys that are the values, are equal', async () => {
  await fc.assert(fc.asyncProperty(cases, async ({ policy: { format, granularity, scales, recipe }, dtype, kind, seed, tokens, heads, headDim, blockSize, same }) => {
    const numbers = random(seed);
    const shape = [tokens, heads, headDim];
    const key = values(numbers, kind, dtype, shape);
    const blocks = Math.ceil(tokens / blockSize) + 1;
    const tensors = new Map([['key', key], ['value', same ? key : values(numbers, kind, dtype, shape)], ['slot_mapping', tensor('I32', [tokens], Int32Array.from({ length: tokens }, (_, i) => (numbers.integer(6) === 0 ? -1 : blocks * blockSize - 1 - i)))]]);
    if (scales === 'given') {
      const scaleShape = granularity === 'tensor' ? [1] : granularity === 'head' ? [heads] : [heads, headDim];
      const given = (): Tensor => tensor('F32', scaleShape, Float32Array.from({ length: scaleShape.reduce((a, b) => a * b, 1) }, () => 2 ** (numbers.integer(40) - 20) * (1 + numbers.uniform())));
      tensors.set('k_scale', given()).set('v_scale', same ? tensors.get('k_scale')! : given());
    }
    const texts = { fp8_kv_case: 'append/1', kv_cache_dtype: format, granularity, blocks: `${blocks}`, block_size: `${blockSize}`, ...(granularity === 'group' ? { group_size: '8' } : {}), ...(recipe ? { recipe } : {}) };
    const metadata = new Map(Object.entries(texts));
    const { tensors: results } = await runAppendCase(backend, readAppendCase(serializeSafetensors(tensors, metadata), 'case'));
    for (const [name, each] of results) if (scales === 'computed' || !name.endsWith('_scale')) tensors.set(`expected.${name}`, each);
    const check = await checkCase(serializeSafetensors(tensors, metadata), 'case') as AppendCheck;
    equal(check.sides.map(({ equal, first, explanation }) => ({ equal, first, explanation })), [0, 1].map(() => ({ equal: true, first: [], explanation: undefined })));
  }), { numRuns: 150, seed: 11 });
}, { seconds: 120 });

test('attention over whatever shapes is equal, also where layouts coincide and scales do', async () => {
  for (const { format, granularity } of allowedPolicies()) {
    for (const [kvHeads, blockSize] of [[1, 1], [2, 2], [1, 5], [3, 1]]) {
      const bytes = await generateAttendCase({ format, granularity, groupSize: granularity === 'group' ? 8 : undefined, headDim: 8, tokens: 7, kvHeads, blockSize, queryHeads: kvHeads });
      const check = await checkCase(bytes, 'case');
      ok(check.equal && check.kind === 'attend' && check.explanation === undefined, `${format} ${granularity} ${kvHeads} ${blockSize}`);
    }
  }
});

test('nothing at all, and a single value', () => {
  for (const shape of [[0], [0, 2, 8], [3, 0, 8], [2, 3, 0], [1], [1, 1, 1]]) {
    const length = shape.reduce((a, b) => a * b, 1);
    for (const granularity of [undefined, 'token-head'] as const) {
      const check = checkCodes({ input: new Float32Array(length), shape, codes: new Uint8Array(length), granularity });
      is(check.equal, true, `${shape}`);
      equal([check.codes, check.explanation], [length, undefined]);
    }
  }
});

test('a fault that data does not show is none', () => {
  const shape = [4, 2, 16];
  for (const [kind, input] of Object.entries({ zeros: new Float32Array(128), constant: new Float32Array(128).fill(3.5), 'powers of two': Float32Array.from({ length: 128 }, (_, i) => 448 * 2 ** -(i % 16)) })) {
    for (const name of ['reciprocal', 'max-over-amax', 'non-saturating', 'torch', 'ml_dtypes, clipped']) {
      const { codes } = faulty(input, 'e4m3fn', 16, faults[name]);
      is(checkCodes({ input, shape, codes, granularity: 'token-head' }).equal, true, `${kind}, ${name}`);
    }
  }
});

test('a changed byte has no name', async () => {
  const numbers = random(31);
  for (const granularity of [undefined, 'tensor', 'token-head', 'group'] as const) {
    const { tensors } = parseSafetensors(await generateCodes({ granularity, groupSize: granularity === 'group' ? 16 : undefined }), 'case');
    const input = float32(tensors.get('input')!);
    for (let i = 0; i < 25; i++) {
      const codes = tensors.get('expected.codes')!.data.slice();
      const at = numbers.integer(codes.length);
      // Two exponents up or down, which no rounding does.
      codes[at] ^= 0x10;
      const scales = tensors.get('scales') ?? tensors.get('expected.scales');
      const check = checkCodes({ input, shape: [40, 2, 64], codes, granularity, groupSize: granularity === 'group' ? 16 : undefined, scales: scales && float32(scales) });
      equal(check.differing, { codes: 1, scales: 0 });
      equal(check.explanation!.all.map(({ name }) => name), [], `${granularity} ${at} ${input[at]}`);
    }
  }
});

/** An append case in which a kernel with a fault wrote both sides. */
async function faultyAppend(granularity: 'tensor' | 'token-head', name: string): Promise<Uint8Array> {
  const { tensors, metadata } = parseSafetensors(await generateAppendCase({ granularity, kvHeads: 2, headDim: 32, tokens: 52 }), 'case');
  const all = new Map(tensors);
  const slots = int32(tensors.get('slot_mapping')!);
  for (const [side, input] of [['k', 'key'], ['v', 'value']] as const) {
    const given = granularity === 'tensor' ? float32(tensors.get(`${side}_scale`)!)[0] : undefined;
    const made = faulty(float32(tensors.get(input)!).slice(), 'e4m3fn', 32, faults[name], given === undefined ? undefined : () => given);
    const cache = tensors.get(`expected.${side}_cache`)!;
    const [codes, scales] = [cache.data.slice(), new Float32Array(cache.data.length / 32)];
    for (const [row, slot] of slots.entries()) {
      if (slot < 0) continue;
      codes.set(made.codes.subarray(row * 64, (row + 1) * 64), slot * 64);
      scales.set(made.scales.subarray(row * 2, (row + 1) * 2), slot * 2);
    }
    all.set(`expected.${side}_cache`, { ...cache, data: codes });
    if (given === undefined) all.set(`expected.${side}_scale`, tensor('F32', tensors.get(`expected.${side}_scale`)!.shape, scales));
  }
  return serializeSafetensors(all, metadata);
}

for (const [granularity, hidden] of [['token-head', /^non-saturating$/], ['tensor', /scale|amax/]] as const) {
  test(`appends of kernels with each fault, ${granularity}`, async () => {
    for (const name of Object.keys(faults)) {
      if (hidden.test(name) || name === 'f16-rounded scale + reciprocal') continue;
      const check = await checkCase(await faultyAppend(granularity, name), 'case') as AppendCheck;
      for (const { side, explanation } of check.sides) ok(explanation?.all.some((each) => each.name === name), `${name}, ${side}: ${JSON.stringify(explanation)}`);
    }
  });
}

test('a slot that comes twice is refused: the cache may hold either', async () => {
  const { tensors, metadata } = parseSafetensors(await generateAppendCase({ tokens: 3, headDim: 8 }), 'case');
  const bytes = serializeSafetensors(new Map([...tensors, ['slot_mapping', tensor('I32', [3], Int32Array.of(4, -1, 4))]]), metadata);
  match(await checkCase(bytes, 'case').then(() => '', String), /RangeError: "slot_mapping" expected each slot once, got 4 twice/);
});
