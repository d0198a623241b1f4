/** Dumps of appends and of attention: right ones are equal, those with a fault get its name. */
import { equal, is, match, ok } from 'uvu/assert';
import { readAppendCase, runAppendCase } from '../../src/files/append-case.js';
import { readAttendCase, runAttendCase } from '../../src/files/attend-case.js';
import { parseSafetensors, serializeSafetensors } from '../../src/files/safetensors.js';
import { float32, int32, type Tensor } from '../../src/files/tensor.js';
import { quantize, wasmBackend } from '../../src/index.js';
import { checkAppendCase } from '../../src/oracle/check-append.js';
import { checkAttendCase } from '../../src/oracle/check-attend.js';
import { checkCase } from '../../src/oracle/index.js';
import { tensor } from '../cli/harness.js';
import { golden, goldenFiles } from '../golden.js';
import { random } from '../random.js';
import { halfOf } from '../reference/codec.js';
import { suite } from '../suite.js';

const test = suite('oracle, cases');
const numbers = random(23);
const [tokens, heads, dim, blocks, blockSize] = [11, 3, 16, 3, 5];

type Tensors = Map<string, Tensor>;

/** What every append of these tests is of. */
function inputs(): Tensors {
  return new Map([
    ['key', tensor('F32', [tokens, heads, dim], numbers.normals(tokens * heads * dim))],
    ['value', tensor('F32', [tokens, heads, dim], numbers.normals(tokens * heads * dim, 5))],
    ['slot_mapping', tensor('I32', [tokens], Int32Array.from({ length: tokens }, (_, i) => (i === 4 ? -1 : (i * 4) % 15)))],
  ]);
}

/** The case with what an append of these tensors leaves, which need not be those of the file. */
async function dump(tensors: Tensors, texts: { [key: string]: string }, taken: Tensors = tensors): Promise<Uint8Array> {
  const metadata = new Map(Object.entries({ fp8_kv_case: 'append/1', layout: 'NHD', blocks: `${blocks}`, block_size: `${blockSize}`, ...texts }));
  const { tensors: results } = await runAppendCase(wasmBackend(), readAppendCase(serializeSafetensors(taken, metadata), 'case'));
  const all = new Map(tensors);
  for (const [name, each] of results) all.set(`expected.${name}`, each);
  return serializeSafetensors(all, metadata);
}

function changed(bytes: Uint8Array, change: (tensors: Tensors) => void): Uint8Array {
  const { tensors, metadata } = parseSafetensors(bytes, 'case');
  const copy = new Map(tensors);
  change(copy);
  return serializeSafetensors(copy, metadata);
}

/** Name of side → dialects that explain all of it. */
async function named(bytes: Uint8Array): Promise<{ [side: string]: readonly string[] | undefined }> {
  const { sides } = await checkAppendCase(bytes, 'case');
  return Object.fromEntries(sides.map(({ side, explanation }) => [side, explanation?.all.map(({ name }) => name)]));
}

const tokenHead = { kv_cache_dtype: 'fp8_e4m3', granularity: 'token-head' };
const scale = (...values: number[]): Tensor => tensor('F32', [values.length], Float32Array.from(values));

test('appends of every format, recipe and granularity are equal', async () => {
  for (const kv_cache_dtype of ['e4m3fn', 'e5m2', 'int8']) {
    for (const recipe of ['amax', 'vllm-token-head', 'compressed-tensors', 'mila-activation', 'max-over-amax', 'ferrum-int8']) {
      if ((kv_cache_dtype === 'int8') === ['mila-activation', 'max-over-amax'].includes(recipe)) continue;
      if (recipe === 'ferrum-int8' && kv_cache_dtype !== 'int8') continue;
      for (const granularity of ['token-head', 'group']) {
        const check = await checkCase(await dump(inputs(), { kv_cache_dtype, recipe, granularity, group_size: '8' }), 'case');
        ok(check.equal, `${kv_cache_dtype} ${recipe} ${granularity}`);
      }
    }
    for (const scales of [scale(0.02), scale(0.01, 0.02, 0.03), tensor('F32', [heads, dim], Float32Array.from({ length: heads * dim }, (_, i) => 0.01 + i / 1000))]) {
      ok((await checkCase(await dump(new Map([...inputs(), ['k_scale', scales], ['v_scale', scales]]), { kv_cache_dtype }), 'case')).equal);
    }
  }
  ok((await checkCase(await dump(inputs(), { kv_cache_dtype: 'f16' }), 'case')).equal);
});

test('the keys\' scales used for values, given and computed', async () => {
  const texts = { kv_cache_dtype: 'e4m3fn' };
  const given: Tensors = new Map([...inputs(), ['k_scale', scale(0.01)], ['v_scale', scale(0.037)]]);
  equal(await named(await dump(given, texts, new Map([...given, ['v_scale', scale(0.01)]]))), { k: undefined, v: ['K scale used for V'] });
  const computed = inputs();
  const values = float32(computed.get('value')!);
  const slots = int32(computed.get('slot_mapping')!);
  const right = await dump(computed, tokenHead);
  const wrong = changed(right, (all) => {
    const scales = float32(all.get('expected.k_scale')!);
    const codes = all.get('expected.v_cache')!.data.slice();
    for (const [token, slot] of slots.entries()) {
      if (slot < 0) continue;
      for (let head = 0; head < heads; head++) {
        const at = (token * heads + head) * dim;
        codes.set(quantize(values.subarray(at, at + dim), { rowLength: dim, scale: scales[slot * heads + head] }).codes, (slot * heads + head) * dim);
      }
    }
    all.set('expected.v_scale', all.get('expected.k_scale')!);
    all.set('expected.v_cache', { ...all.get('expected.v_cache')!, data: codes });
  });
  equal(await named(wrong), { k: undefined, v: ['K scale used for V'] });
  // Used for one of the two: to divide by, or to be stored.
  const taken = (name: string, from: Uint8Array, of: string) => (all: Tensors) => void all.set(name, parseSafetensors(from, 'case').tensors.get(of)!);
  equal(await named(changed(right, taken('expected.v_cache', wrong, 'expected.v_cache'))), { k: undefined, v: ['K scale used for V'] });
  equal(await named(changed(right, taken('expected.v_scale', right, 'expected.k_scale'))), { k: undefined, v: ['K scale used for V'] });
});

test('stored scales one ulp up and down, in slots that are not in the order of tokens', async () => {
  const wrong = changed(await dump(inputs(), tokenHead), (all) => {
    for (const name of ['expected.k_scale', 'expected.v_scale']) {
      const words = new Int32Array(float32(all.get(name)!).slice().buffer);
      all.set(name, tensor('F32', [blocks, blockSize, heads], words.map((word, i) => (word === 0 ? 0 : word + [1, -1, 0][i % 3]))));
    }
  });
  equal(await named(wrong), { k: ['scale one ulp off'], v: ['scale one ulp off'] });
});

test('what torch and vLLM dump: int64 slots, uint8 caches, f16 scales, scales without a dimension', async () => {
  const wide = (all: Tensors): void => {
    all.set('slot_mapping', tensor('I64', [tokens], BigInt64Array.from(int32(all.get('slot_mapping')!), BigInt)));
    for (const name of ['expected.k_cache', 'expected.v_cache']) all.set(name, { ...all.get(name)!, dtype: 'U8' });
  };
  ok((await checkCase(changed(await dump(inputs(), tokenHead), wide), 'case')).equal);
  const given: Tensors = new Map([...inputs(), ['k_scale', tensor('F32', [], Float32Array.of(0.02))], ['v_scale', tensor('F16', [], Uint16Array.of(halfOf(0.02)))]]);
  ok((await checkCase(await dump(given, { kv_cache_dtype: 'fp8_e5m2' }), 'case')).equal);
  const halves = changed(await dump(inputs(), tokenHead), (all) => {
    for (const name of ['expected.k_scale', 'expected.v_scale']) all.set(name, tensor('F16', [blocks, blockSize, heads], Uint16Array.from(float32(all.get(name)!), halfOf)));
  });
  for (const names of Object.values(await named(halves))) ok(names?.includes('scale stored as f16'), `${names}`);
  const bytes = changed(await dump(inputs(), { ...tokenHead, kv_cache_dtype: 'int8' }), (all) => all.set('expected.k_cache', { ...all.get('expected.k_cache')!, dtype: 'U8' }));
  match(await checkCase(bytes, 'case').then(() => '', String), /"expected\.k_cache" expected I8, got U8/);
});

/** Rows of [pages, a, b, width] as [pages, b, a, width]. */
function swapped({ dtype, shape, data }: Tensor, a: number, b: number): Tensor {
  const width = data.length / (shape[0] * shape[1] * shape[2]);
  const moved = data.map((_, i) => {
    const row = Math.floor(i / width);
    const inPage = row % (a * b);
    return data[(row - inPage + (inPage % a) * b + Math.floor(inPage / a)) * width + (i % width)];
  });
  return { dtype, shape, data: moved };
}

test('an append that writes pages in the other layout', async () => {
  const right = await dump(inputs(), tokenHead);
  const wrong = changed(right, (all) => {
    for (const name of ['expected.k_cache', 'expected.k_scale', 'expected.v_cache', 'expected.v_scale']) all.set(name, swapped(all.get(name)!, blockSize, heads));
  });
  equal(await named(wrong), { k: ['HND for NHD'], v: ['HND for NHD'] });
  const apart = changed(right, (all) => {
    for (const name of ['expected.k_cache', 'expected.v_scale']) all.set(name, swapped(all.get(name)!, blockSize, heads));
  });
  equal(await named(apart), { k: ['HND for NHD'], v: ['HND for NHD'] });
});

test('a byte where nothing was to be written', async () => {
  const wrong = changed(await dump(inputs(), tokenHead), (all) => {
    const data = all.get('expected.k_cache')!.data.slice();
    // Slot 1 is that of token 4, which is skipped.
    data[1 * heads * dim + 3] = 7;
    all.set('expected.k_cache', { ...all.get('expected.k_cache')!, data });
  });
  const { sides: [k, v] } = await checkAppendCase(wrong, 'case');
  equal([k.equal, v.equal], [false, true]);
  equal(k.first, [{ tensor: 'k_cache', at: [0, 1, 0, 3], expected: '0x00', found: '0x07', expectedValue: 0, foundValue: 7 * 2 ** -9 }]);
  equal(k.explanation, { all: [], most: undefined });
});

/** A decode step on two sequences, with scales per tensor. */
const attention = (kScale: number, vScale: number): Tensors => {
  const codes = (): Tensor => tensor('F8_E4M3', [4, 8, 2, 16], Uint8Array.from({ length: 4 * 8 * 2 * 16 }, () => (numbers.integer(2) << 7) | (0x20 + numbers.integer(0x18))));
  return new Map([
    ['k_cache', codes()], ['v_cache', codes()], ['k_scale', scale(kScale)], ['v_scale', scale(vScale)],
    ['q', tensor('F32', [2, 4, 16], numbers.normals(2 * 4 * 16))],
    ['block_table', tensor('I32', [2, 2], Int32Array.of(2, 0, 1, 3))],
    ['cu_seqlens_q', tensor('I32', [3], Int32Array.of(0, 1, 2))],
    ['seqused_k', tensor('I32', [2], Int32Array.of(16, 13))],
  ]);
};

/** The case with the attention of these tensors, which need not be those of the file. */
async function attended(tensors: Tensors, taken: Tensors): Promise<Uint8Array> {
  const metadata = new Map([['fp8_kv_case', 'attend/1']]);
  const { out, lse } = await runAttendCase(wasmBackend(), readAttendCase(serializeSafetensors(taken, metadata), 'case'));
  return serializeSafetensors(new Map([...tensors, ['expected.out', tensor('F32', [2, 4, 16], out)], ['expected.lse', tensor('F32', [2, 4], lse)]]), metadata);
}

async function namedAttention(tensors: Tensors, changes: Tensors): Promise<readonly string[] | undefined> {
  const check = await checkCase(await attended(tensors, new Map([...tensors, ...changes])), 'case');
  if (check.kind !== 'attend') throw new Error(check.kind);
  is(check.equal, check.explanation === undefined);
  return check.explanation?.all.map(({ name }) => name);
}

test('attention: right, and with each fault that reading a cache may have', async () => {
  const tensors = attention(0.0737, 0.511);
  is(await namedAttention(tensors, new Map()), undefined);
  equal(await namedAttention(tensors, new Map([['v_scale', scale(0.0737)]])), ['K scale used for V']);
  equal(await namedAttention(tensors, new Map(['k_cache', 'v_cache'].map((name) => [name, swapped(tensors.get(name)!, 2, 8)]))), ['HND for NHD']);
  equal(await namedAttention(tensors, new Map([['v_cache', swapped(tensors.get('v_cache')!, 2, 8)]])), ['HND for NHD']);
  // FNUZ codes stand for half as much.
  equal(await namedAttention(tensors, new Map([['k_scale', scale(0.0737 / 2)], ['v_scale', scale(0.511 / 2)]])), ['FNUZ']);
  equal(await namedAttention(tensors, new Map([['k_scale', scale(0.0737 / 2)]])), ['FNUZ']);
  // Between two f16 by more than the bound.
  const between = attention(1 + 2 ** -11 * 0.9, 1 + 2 ** -11 * 0.9);
  equal(await namedAttention(between, new Map([['k_scale', scale(1)], ['v_scale', scale(1)]])), ['f16-rounded scale']);
  equal(await namedAttention(tensors, new Map([['q', tensor('F32', [2, 4, 16], numbers.normals(2 * 4 * 16))]])), []);
});

test('attention whose output has 16 bits is held to less', async () => {
  const tensors = attention(0.0737, 0.511);
  const right = await attended(tensors, tensors);
  const values = float32(parseSafetensors(right, 'case').tensors.get('expected.out')!);
  for (const [dtype, bits] of [['F16', (x: number) => halfOf(x)], ['BF16', (x: number) => (new Uint32Array(Float32Array.of(x).buffer)[0] + 0x8000) >>> 16]] as const) {
    const of = (factor: number): Uint8Array => changed(right, (all) => all.set('expected.out', tensor(dtype, [2, 4, 16], Uint16Array.from(values, (x) => bits(x * factor)))));
    const check = await checkAttendCase(of(1), 'case');
    ok(check.equal && check.error.out > 1e-4, dtype);
    equal(check.bound, { out: 5e-3, lse: 1e-4 });
    is((await checkAttendCase(of(1.01), 'case')).differing, 8);
  }
  equal((await checkAttendCase(right, 'case')).bound, { out: 1e-4, lse: 1e-4 });
});

test('attention with answers in float64 is equal, whatever its formats and masks', async () => {
  for (const path of goldenFiles('attend').slice(0, 40)) {
    const check = await checkCase(golden(path), path);
    ok(check.equal, `${path}: ${JSON.stringify(check)}`);
  }
});

test('a case without what a kernel gave is refused', async () => {
  const bytes = serializeSafetensors(inputs(), new Map(Object.entries({ fp8_kv_case: 'append/1', ...tokenHead, blocks: '3', block_size: '5' })));
  match(await checkCase(bytes, 'case').then(() => '', String), /RangeError: "case" expected tensors expected\.k_cache or expected\.v_cache/);
  match(await checkCase(serializeSafetensors(new Map()), 'case').then(() => '', String), /metadata "fp8_kv_case" expected codes\/1, append\/1 or attend\/1, got none/);
});
