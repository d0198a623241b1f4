/** Hugging Face's cache against a plain model of it: lists of rows, and the codec. */
import { equal, is, ok, throws } from 'uvu/assert';
import {
  allowedPolicies, decode, HuggingFaceCache, quantize, wasmBackend,
  type FloatDtype, type Format, type Granularity, type HuggingFaceCacheOptions, type HuggingFaceTensor, type RecipeName, type WasmBackend,
} from '../src/index.js';
import { assertSameBits } from './bits.js';
import { PlainResidual } from './cache/plain-residual.js';
import { random, type Random } from './random.js';
import { definitions, halfOf, valueOf } from './reference/codec.js';
import { suite } from './suite.js';

const test = suite('Hugging Face\'s cache');
const backend = wasmBackend();
const [kvHeads, headDim] = [2, 16];
const tokenFloats = kvHeads * headDim;

/** How one side of a layer is stored. */
interface Side {
  readonly format: Format;
  readonly granularity: Granularity;
  readonly groupSize?: number;
  readonly recipe?: RecipeName;
  /** As many as the granularity has. */
  readonly scale?: Float32Array;
}

const perToken = (format: Format): Side => ({ format, granularity: 'token-head' });

/** What its codes stand for. */
function valuesOf(codes: Uint8Array | Int8Array, format: Format): Float32Array {
  return codes instanceof Int8Array ? Float32Array.from(codes) : decode(codes, format);
}

function quantized(x: Float32Array, format: Format, rowLength: number, rule: { readonly scale?: number; readonly recipe?: RecipeName }): Float32Array {
  const { codes, scales } = format === 'int8' ? quantize(x, { format, rowLength, ...rule }) : quantize(x, { format: format as 'e4m3fn', rowLength, ...rule });
  return valuesOf(codes, format).map((value, i) => value * scales[rule.scale === undefined ? Math.floor(i / rowLength) : 0]);
}

/** A token's row of one head there and back. */
function roundTrip(row: Float32Array, head: number, { format, granularity, groupSize, recipe, scale = Float32Array.of(1) }: Side): Float32Array {
  if (format === 'f32') return row;
  if (format === 'f16') return row.map((x) => valueOf(halfOf(x), definitions.f16));
  if (granularity === 'token-head') return quantized(row, format, headDim, { recipe });
  if (granularity === 'group') return quantized(row, format, groupSize!, { recipe });
  if (granularity === 'channel') return row.map((x, d) => quantized(new Float32Array(8).fill(x), format, 8, { scale: scale[head * headDim + d] })[0]);
  return quantized(row, format, headDim, { scale: scale[granularity === 'head' ? head : 0] });
}

/** A layer's keys or values: each token's rows, [kvHeads] of them, as they came and there and back. */
interface PlainToken {
  readonly given: readonly Float32Array[];
  readonly stored: readonly Float32Array[];
}

/** [1, kvHeads, tokens, headDim] */
function tensorOf(tokens: readonly (readonly Float32Array[])[]): HuggingFaceTensor {
  const data = new Float32Array(tokens.length * tokenFloats);
  for (const [t, rows] of tokens.entries()) for (const [h, row] of rows.entries()) data.set(row, (h * tokens.length + t) * headDim);
  return { data, dims: [1, kvHeads, tokens.length, headDim] };
}

class PlainLayer {
  readonly tokens: { readonly k: PlainToken[]; readonly v: PlainToken[] } = { k: [], v: [] };

  constructor(private readonly sides: { readonly k: Side; readonly v: Side }) {}

  /** New tokens: what the model gives for them. */
  grow(numbers: Random, count: number): [HuggingFaceTensor, HuggingFaceTensor] {
    const side = (name: 'k' | 'v'): HuggingFaceTensor => {
      const fresh = Array.from({ length: count }, (): PlainToken => {
        const given = Array.from({ length: kvHeads }, () => numbers.normals(headDim));
        return { given, stored: given.map((row, head) => roundTrip(row, head, this.sides[name])) };
      });
      this.tokens[name].push(...fresh);
      return tensorOf(fresh.map(({ given }) => given));
    };
    return [side('k'), side('v')];
  }

  /** All tokens, the first `quantized` of them as they are stored. */
  read(quantized: number): [HuggingFaceTensor, HuggingFaceTensor] {
    const side = (tokens: readonly PlainToken[]) => tensorOf(tokens.map(({ given, stored }, t) => (t < quantized ? stored : given)));
    return [side(this.tokens.k), side(this.tokens.v)];
  }
}

function assertSameTensors(actual: readonly HuggingFaceTensor[], expected: readonly HuggingFaceTensor[], what: string): void {
  for (const [i, name] of ['keys', 'values'].entries()) {
    equal(actual[i].dims, expected[i].dims, `${what}: ${name}`);
    assertSameBits(actual[i].data, expected[i].data, `${what}: ${name}`);
  }
}

const residualSides = [{ k: perToken('e4m3fn'), v: perToken('int8') }, { k: perToken('e5m2'), v: perToken('e4m3fn') }];
const residualOptions = {
  kvHeads, headDim, layers: [{ dtype: { k: 'e4m3fn', v: 'int8' } }, { dtype: { k: 'e5m2', v: 'e4m3fn' } }],
} as const satisfies Omit<HuggingFaceCacheOptions, 'capacity'>;

/** Forward passes through a cache and the model of it: all that is returned is the same. */
function assertPasses(residual: number, residualRule: 'page' | 'huggingface', passes: readonly number[], options: Partial<HuggingFaceCacheOptions> = {}): PlainResidual {
  const all = passes.reduce((sum, tokens) => sum + tokens, 0);
  const cache = new HuggingFaceCache(backend, { ...residualOptions, capacity: all, residual, residualRule, ...options });
  const rule = new PlainResidual(residualRule, residual, 16);
  const layers = residualSides.map((sides) => new PlainLayer(sides));
  const numbers = random(all);
  for (const [pass, tokens] of passes.entries()) {
    const before = rule.length;
    rule.add(tokens);
    for (const [index, layer] of layers.entries()) {
      is(cache.getSeqLength(index), before);
      const returned = cache.update(...layer.grow(numbers, tokens), index);
      const isFirst = pass === 0 && residualRule === 'huggingface';
      assertSameTensors(returned, layer.read(isFirst ? 0 : rule.read), `residual ${residual}, ${residualRule}, pass ${pass}, layer ${index}`);
      is(cache.getSeqLength(index), rule.length);
    }
    is(cache.getSeqLength(), rule.length);
  }
  cache.dispose();
  return rule;
}

const ones = (count: number): number[] => Array.from({ length: count }, () => 1);

for (const rule of ['huggingface', 'page'] as const) {
  test(`residual of 128, rule ${rule}: the first chunk, growth, and the overflow, for chunks around it`, () => {
    for (const first of [1, 5, 127, 128, 129, 300]) {
      const { quantized } = assertPasses(128, rule, [first, ...ones(131)]);
      // Of Hugging Face's: 127 after the first chunk and one more, at which all is quantized; three are there again.
      if (rule === 'huggingface') is(quantized, first + 128);
    }
  });

  test(`residual of 128, rule ${rule}: 1,000 decode steps`, () => {
    assertPasses(128, rule, [40, ...ones(1000)]);
  }, { seconds: 240 });

  test(`residual, rule ${rule}: later chunks of several tokens, before, at and after the overflow`, () => {
    assertPasses(128, rule, [17, 100, 26, 1, 1, 300, 1, 129, 128, 1, 1, 64, 64, 1]);
    assertPasses(20, rule, [3, 19, 1, 1, 18, 1, 1, 200, 1, 1], { chunk: 200 });
    for (const residual of [1, 2, 3]) assertPasses(residual, rule, [...ones(9), 5, 1, 1, 7, 1, 1, 1]);
  });
}

test('quantized once, and not at each overflow again as there: nothing, or a last bit of a scale, is what that changes', () => {
  const numbers = random(5);
  const rows = numbers.normals(200 * headDim);
  for (const format of ['e4m3fn', 'e5m2', 'int8'] as const) {
    const given = quantized(rows, format, headDim, { scale: 0.02 });
    assertSameBits(quantized(given, format, headDim, { scale: 0.02 }), given, `${format}, given`);
    const once = quantized(rows, format, headDim, {});
    const twice = quantized(once, format, headDim, {});
    ok(once.every((x, i) => Math.abs(twice[i] - x) <= Math.abs(x) * 2 ** -22), format);
  }
});

test('without a residual all is quantized at once, and an unquantized layer gives what it was given', () => {
  const sides = [{ k: perToken('e4m3fn'), v: perToken('e4m3fn') }, { k: perToken('f32'), v: perToken('f32') }];
  const cache = new HuggingFaceCache(backend, { layers: 2, skipLayers: [1], kvHeads, headDim, capacity: 40 });
  const layers = sides.map((each) => new PlainLayer(each));
  const numbers = random(11);
  for (const [pass, tokens] of [20, 1, 1, 18].entries()) {
    for (const [index, layer] of layers.entries()) assertSameTensors(cache.update(...layer.grow(numbers, tokens), index), layer.read(Infinity), `pass ${pass}, layer ${index}`);
  }
  cache.dispose();
});

/** Layers of every policy, and the rows that they are to give. */
function policies(): { readonly options: HuggingFaceCacheOptions; readonly sides: readonly { readonly k: Side; readonly v: Side }[] } {
  const counts = { tensor: 1, head: kvHeads, channel: tokenFloats } as const;
  const numbers = random(77);
  const sides = allowedPolicies().flatMap(({ format, granularity, scales, recipes }) => {
    const groupSize = granularity === 'group' ? 8 : undefined;
    const given = scales === 'given' ? Float32Array.from(numbers.normals(counts[granularity as 'tensor']), (x) => Math.abs(x) / 50 + 2 ** -9) : undefined;
    return (scales === 'computed' ? recipes : [undefined]).map((recipe): Side => ({ format, granularity, groupSize, recipe, scale: given }));
  });
  const pairs = sides.map((k, i) => ({ k, v: sides[(i + 7) % sides.length] }));
  const layers = pairs.map(({ k, v }) => ({
    dtype: { k: k.format, v: v.format }, granularity: { k: k.granularity, v: v.granularity }, groupSize: { k: k.groupSize, v: v.groupSize },
    recipe: { k: k.recipe ?? 'amax', v: v.recipe ?? 'amax' }, scale: { k: k.scale, v: v.scale },
  }));
  return { options: { layers, kvHeads, headDim, capacity: 60 }, sides: pairs };
}

test('every format, granularity and recipe gives what the codec gives', () => {
  const { options, sides } = policies();
  const { capacity, ...shape } = options;
  const cache = new HuggingFaceCache(backend, options);
  const fake = new HuggingFaceCache(backend, { ...shape, store: false });
  const layers = sides.map((each) => new PlainLayer(each));
  const numbers = random(13);
  for (const tokens of [capacity! - 2, 1, 1]) {
    for (const [index, layer] of layers.entries()) {
      const given = layer.grow(numbers, tokens);
      const what = `layer ${index}: ${JSON.stringify(sides[index])}`;
      assertSameTensors(cache.update(...given, index), layer.read(Infinity), what);
      const alone = new PlainLayer(sides[index]);
      for (const side of ['k', 'v'] as const) alone.tokens[side].push(...layer.tokens[side].slice(-tokens));
      assertSameTensors(fake.update(...given, index), alone.read(Infinity), `${what}, not stored`);
    }
  }
  cache.dispose();
  fake.dispose();
});

test('where nothing is stored, layers come as they like, and there is no past', () => {
  const sides = { k: perToken('e4m3fn'), v: perToken('e4m3fn') };
  const cache = new HuggingFaceCache(backend, { layers: 3, kvHeads, headDim, store: false });
  const numbers = random(17);
  for (const [layer, tokens] of [[2, 5], [0, 1], [0, 40], [2, 2]] as const) {
    const plain = new PlainLayer(sides);
    assertSameTensors(cache.update(...plain.grow(numbers, tokens), layer), plain.read(Infinity), `layer ${layer}`);
    is(cache.getSeqLength(layer), 0);
  }
  cache.reset();
  cache.resetStates();
  is(cache.getSeqLength(), 0);
  cache[Symbol.dispose]();
});

/** Halves that are numbers, and the same in f32. */
function halves(numbers: Random, dtype: FloatDtype, length: number): { bits: Uint16Array; values: Float32Array } {
  const bits = Uint16Array.from({ length }, () => numbers.integer(2) * 0x8000 + numbers.integer(dtype === 'f16' ? 0x7c00 : 0x4200));
  const values = Float32Array.from(bits, (half) => (dtype === 'f16' ? valueOf(half, definitions.f16) : new Float32Array(Uint32Array.of(half << 16).buffer)[0]));
  return { bits, values };
}

test('f16 and bf16 are taken as the numbers that they are, also by the residual', () => {
  const numbers = random(19);
  const dims = [1, kvHeads, 3, headDim];
  for (const dtype of ['f16', 'bf16'] as const) {
    const [wide, narrow] = [0, 1].map(() => new HuggingFaceCache(backend, { layers: 1, kvHeads, headDim, capacity: 9, residual: 6 }));
    for (let pass = 0; pass < 3; pass++) {
      const [key, value] = [0, 1].map(() => halves(numbers, dtype, 3 * tokenFloats));
      const expected = wide.update({ data: key.values, dims }, { data: value.values, dims }, 0);
      assertSameTensors(narrow.update({ data: key.bits, dims, dtype }, { data: value.bits, dims, dtype }, 0), expected, `${dtype}, pass ${pass}`);
    }
  }
});

const small: HuggingFaceCacheOptions = { layers: 2, kvHeads, headDim, capacity: 20 };

/** A tensor of tokens, all alike. */
function filled(tokens: number, dims = [1, kvHeads, tokens, headDim]): HuggingFaceTensor {
  return { data: new Float32Array(tokens * tokenFloats).fill(0.5), dims };
}

test('what is given stays the caller\'s, and so does what is returned', () => {
  const cache = new HuggingFaceCache(backend, { ...small, residual: 8 });
  const [key, value] = [filled(2), filled(2)];
  const first = cache.update(key, value, 0);
  for (const { data } of first) data.fill(7);
  assertSameBits(key.data, filled(2).data);
  cache.update(key, value, 1);
  const [later] = cache.update(filled(1), filled(1), 0);
  assertSameBits(later.data, filled(3).data);
  is(later.dtype, 'f32');
  cache.dispose();
});

test('reset, and resetStates, begin anew, also in the middle of a pass', () => {
  const cache = new HuggingFaceCache(backend, { ...small, residual: 4 });
  const pass = (tokens: number): void => {
    for (const layer of [0, 1]) is(cache.update(filled(tokens), filled(tokens), layer, { cache_position: [0] })[0].dims[2], cache.getSeqLength(layer));
  };
  for (const again of [() => cache.reset(), () => cache.resetStates()]) {
    pass(3);
    for (let i = 0; i < 6; i++) pass(1);
    cache.update(filled(2), filled(2), 0);
    equal([cache.getSeqLength(0), cache.getSeqLength(1)], [11, 9]);
    again();
    equal([cache.getSeqLength(0), cache.getSeqLength(1)], [0, 0]);
    again();
    pass(20);
    again();
  }
  cache.dispose();
});

test('what does not fit is refused before anything is written, and the pass goes on', () => {
  const cache = new HuggingFaceCache(backend, { ...small, chunk: 12 });
  const good = filled(3);
  const refused = (key: unknown, value: unknown, layer: number, message: RegExp): void =>
    throws(() => cache.update(key as HuggingFaceTensor, value as HuggingFaceTensor, layer), message);
  const all = (layer: number): void => {
    refused(undefined, good, layer, /"keyStates" expected \{ data, dims \}, got undefined/);
    refused(filled(6, [2, kvHeads, 3, headDim]), good, layer, /"keyStates\.dims" expected \[1, 2, seq, 16\] of one sequence .*, got \[2, 2, 3, 16\]/);
    refused(good, filled(3, [1, 3, kvHeads, headDim]), layer, /"valueStates\.dims" expected \[1, 2, seq, 16\]/);
    refused(good, filled(3, [kvHeads, 3, headDim]), layer, /"valueStates\.dims" expected .*, got \[2, 3, 16\]/);
    refused(filled(0), filled(0), layer, /"keyStates\.dims" expected .* with new tokens/);
    refused({ data: good.data }, good, layer, /"keyStates\.dims" expected .*, got undefined/);
    refused(filled(4, good.dims as number[]), good, layer, /"keyStates\.data" expected 96 elements, as its dims say, got 128/);
    refused(good, filled(4), layer, /"valueStates\.dims\[2\]" expected 3 tokens, as "keyStates", got 4/);
    refused(good, { ...good, data: new Uint16Array(96), dtype: 'f16' }, layer, /"valueStates\.dtype" expected f32, as that of "keyStates", got f16/);
    refused({ ...good, data: new Uint16Array(96) }, good, layer, /"keyStates\.data" is a Uint16Array: its dtype expected f16 or bf16/);
    refused(good, good, 2, /"layerIdx" expected an integer from 0 to 1, got number 2/);
  };
  all(0);
  refused(good, good, 1, /"layerIdx" expected 0, as layers come in order, got 1: resetStates\(\) forgets a pass that was begun/);
  refused(filled(13), filled(13), 0, /"keyStates\.dims\[2\]" expected at most 12 tokens in a call, the cache's "chunk" \("capacity" unless stated\), got 13/);
  is(cache.getSeqLength(), 0);
  cache.update(good, good, 0);
  all(1);
  refused(good, good, 0, /"layerIdx" expected 1, as layers come in order, got 0/);
  refused(filled(4), filled(4), 1, /"keyStates\.dims\[2\]" expected 3 tokens, as in the layers before, got 4/);
  equal([cache.getSeqLength(0), cache.getSeqLength(1)], [3, 0]);
  assertSameBits(cache.update(good, good, 1)[0].data, good.data);
  for (const layer of [0, 1]) cache.update(filled(12), filled(12), layer);
  refused(filled(6), filled(6), 0, /"keyStates\.dims\[2\]" expected at most 5 more tokens, as the cache's "capacity" is 20, got 6/);
  for (const layer of [0, 1]) cache.update(filled(5), filled(5), layer);
  throws(() => cache.getSeqLength(2), /"layerIdx" expected an integer from 0 to 1/);
  is(cache.getSeqLength(), 20);
  cache.reset();
  cache.dispose();
  refused(good, good, 0, /"cache" expected to be in use, got one that was disposed of/);
  is(cache.getSeqLength(), 0);
});

test('options that do not fit are refused', () => {
  const refused = (options: unknown, message: RegExp, over: unknown = backend): void =>
    throws(() => new HuggingFaceCache(over as WasmBackend, options as HuggingFaceCacheOptions), message);
  refused(undefined, /"options" expected an object, got undefined/);
  refused({ ...small, capacity: undefined }, /"capacity" expected an integer of at least 1, got undefined/);
  refused({ ...small, store: 1 }, /"store" expected true or false, got number 1/);
  refused({ ...small, store: false }, /"capacity" expected to be absent where "store" is false, got number 20/);
  refused({ ...small, capacity: undefined, residual: 8, store: false }, /"residual" expected to be absent where "store" is false/);
  refused({ ...small, slidingWindow: 8 }, /"slidingWindow" expected to be absent, as layers are given back all of their tokens, got one in layer 0/);
  refused({ ...small, residualRule: 'page' }, /"residualRule" expected to be absent without "residual"/);
  refused({ ...small, residual: 0 }, /"residual" expected an integer from 1/);
  refused(small, /"backend" expected one that answers at once \(wasmBackend\(\)\), got one that gives promises/, Object.create(backend, { synchronous: { value: false } }));
});

test('presets are taken, contiguous ones too', () => {
  for (const preset of ['mila', 'vllm-token-head'] as const) {
    assertPasses(8, 'huggingface', [5, ...ones(20)], { preset });
    new HuggingFaceCache(backend, { ...residualOptions, preset, store: false }).update(filled(3), filled(3), 1);
  }
});
