/** Data made with each known fault gets that fault's name, and right data none. */
import { equal, is, ok, throws } from 'uvu/assert';
import { hardRows } from '../../src/align/inputs.js';
import { encode, quantize, recipes, type FloatDtype, type QuantizedFormat, type Recipe, type RecipeName } from '../../src/index.js';
import { checkCodes, dialects, type CheckCodesCall, type CodeCheck } from '../../src/oracle/index.js';
import { golden, nvidiaMap } from '../golden.js';
import { random } from '../random.js';
import { halfOf } from '../reference/codec.js';
import { suite } from '../suite.js';

const test = suite('oracle, codes');
const numbers = random(71);
const names = (check: CodeCheck): readonly string[] => check.explanation?.all.map(({ name }) => name) ?? [];

function assertEqual(check: CodeCheck, what: string): void {
  equal(check.first, [], what);
  ok(check.equal, what);
  is(check.explanation, undefined, what);
}

/** Explained, wholly, by these and no others. */
function assertNamed(call: CheckCodesCall, ...expected: string[]): void {
  const check = checkCodes(call);
  is(check.equal, false, expected[0]);
  equal([...names(check)].sort(), expected.sort());
}

test('encoding alone is what NVIDIA has, at all edges and on 100,000 points', () => {
  const input = new Float32Array(golden('codec/f32.inputs.u32le.bin').slice().buffer);
  for (const format of ['e4m3fn', 'e5m2'] as const) {
    for (const mode of ['satfinite', 'nosat'] as const) {
      const codes = golden(`codec/f32.${format}.${mode}.u8.bin`);
      assertEqual(checkCodes({ input, shape: [input.length], codes, format, saturate: mode === 'satfinite' }), `${format} ${mode}`);
      const { starts, codeOf } = nvidiaMap(format, mode);
      const edges = Uint32Array.from(starts.flatMap((start) => [Math.max(0, start - 1), start]));
      assertEqual(checkCodes({ input: new Float32Array(edges.buffer), shape: [edges.length], codes: Uint8Array.from(edges, codeOf), format, saturate: mode === 'satfinite' }), `${format} ${mode}`);
    }
  }
});

const formats = ['e4m3fn', 'e5m2', 'int8'] as const;
const computes = (recipe: Recipe, format: QuantizedFormat): boolean => (format === 'int8' ? recipe.int8 !== undefined : !recipe.int8Only);

function quantized(format: QuantizedFormat, input: Float32Array | Uint16Array, from: FloatDtype, rowLength: number, recipe: RecipeName | Recipe) {
  return format === 'int8' ? quantize(input, { format, rowLength, recipe, from }) : quantize(input, { format, rowLength, recipe, from });
}

test('right codes of every format, recipe, granularity and dtype are equal, and nothing is named', () => {
  for (const dtype of ['f32', 'f16', 'bf16'] as const) {
    for (const format of formats) {
      const input = hardRows(numbers, dtype, 26, 32);
      for (const [name, recipe] of Object.entries(recipes) as [RecipeName, Recipe][]) {
        if (!computes(recipe, format)) continue;
        for (const groupSize of [undefined, 8, 16]) {
          for (const scalePrecision of ['f32', 'f16', 'f16-stored'] as const) {
            const { codes, scales } = quantized(format, input, dtype, groupSize ?? 32, { ...recipe, scalePrecision });
            const call = { input, dtype, shape: [13, 2, 32], codes, format, recipe: name, scalePrecision, granularity: groupSize ? 'group' : 'token-head', groupSize } as const;
            assertEqual(checkCodes({ ...call, scales }), `${dtype} ${format} ${name} ${groupSize} ${scalePrecision}`);
            assertEqual(checkCodes(call), `${dtype} ${format} ${name} ${groupSize}, codes alone`);
          }
        }
      }
    }
  }
});

/** Each row divided by a scale of its own, by the public codec. */
function dividedRows(input: Float32Array, dim: number, format: QuantizedFormat, scaleOf: (row: number) => number): Uint8Array {
  const codes = new Uint8Array(input.length);
  for (let row = 0; row < input.length / dim; row++) {
    const x = input.subarray(row * dim, (row + 1) * dim);
    const options = { rowLength: dim, scale: scaleOf(row) };
    const result = format === 'int8' ? quantize(x, { ...options, format }) : quantize(x, { ...options, format });
    codes.set(new Uint8Array(result.codes.buffer), row * dim);
  }
  return codes;
}

test('right codes of given scales, in both layouts', () => {
  const [tokens, heads, dim] = [7, 3, 16];
  const input = numbers.normals(tokens * heads * dim);
  for (const format of formats) {
    const scales = Float32Array.of(0.01, 0.02, 0.035);
    const shape = [tokens, heads, dim];
    assertEqual(checkCodes({ input, shape, format, granularity: 'tensor', scales: scales.slice(2), codes: dividedRows(input, dim, format, () => scales[2]) }), 'tensor');
    assertEqual(checkCodes({ input, shape, format, granularity: 'head', scales, codes: dividedRows(input, dim, format, (row) => scales[row % heads]) }), 'head');
    const hnd = dividedRows(input, dim, format, (row) => scales[Math.floor(row / tokens)]);
    assertEqual(checkCodes({ input, shape: [heads, tokens, dim], format, layout: 'HND', granularity: 'head', scales, codes: hnd }), 'head, HND');
    const channels = Float32Array.from({ length: heads * dim }, (_, i) => 0.01 + i / 1000);
    const single = (i: number): number => dividedRows(Float32Array.from({ length: 8 }, () => input[i]), 8, format, () => channels[i % (heads * dim)])[0];
    assertEqual(checkCodes({ input, shape, format, granularity: 'channel', scales: channels, codes: Uint8Array.from(input, (_, i) => single(i)) }), 'channel');
  }
});

/** f32 values by their bits. */
const fromBits = (...bits: number[]): Float32Array => new Float32Array(Uint32Array.from(bits).buffer);

/** Encoded as the library does, with some codes in place of its own. */
const withCodes = (input: Float32Array, format: 'e4m3fn' | 'e5m2', changes: { [at: number]: number }, saturate = true): CheckCodesCall => {
  const codes = encode(input, format, { saturate });
  for (const [at, code] of Object.entries(changes)) codes[Number(at)] = code;
  return { input, shape: [input.length], format, codes };
};

// NaN positive, NaN negative, a payload with the bit that LLVM keeps, too large, too small, the infinities, ordinary.
const special = fromBits(0x7fc00000, 0xffc00000, 0x7fe00000, 0x49742400, 0xc9742400, 0x7f800000, 0xff800000, 0x3fc00000);

test('casts of other libraries: torch, ml_dtypes, LLVM', () => {
  assertNamed(withCodes(special, 'e4m3fn', {}, false), 'non-saturating');
  assertNamed(withCodes(special, 'e5m2', {}, false), 'non-saturating');
  assertNamed(withCodes(special, 'e4m3fn', { 1: 0xff }, false), 'torch', 'ml_dtypes', 'LLVM');
  assertNamed(withCodes(special, 'e5m2', { 1: 0xff }, false), 'torch');
  assertNamed(withCodes(special, 'e4m3fn', { 1: 0xff }), 'torch, clamped', 'ml_dtypes, clipped');
  assertNamed(withCodes(special, 'e5m2', { 1: 0xff }), 'torch, clamped');
  assertNamed(withCodes(special, 'e5m2', { 0: 0x7e, 1: 0xfe, 2: 0x7e }, false), 'ml_dtypes');
  assertNamed(withCodes(special, 'e5m2', { 0: 0x7e, 1: 0xfe, 2: 0x7e }), 'ml_dtypes, clipped');
  assertNamed(withCodes(special, 'e5m2', { 0: 0x7e, 1: 0xfe, 2: 0x7f }, false), 'LLVM');
  assertNamed(withCodes(special, 'e4m3fn', { 1: 0xff, 5: 0x7f, 6: 0xff }), 'ml_dtypes, saturating');
  assertNamed(withCodes(special, 'e5m2', { 0: 0x7e, 1: 0xfe, 2: 0x7e, 5: 0x7c, 6: 0xfc }), 'ml_dtypes, saturating');
  assertNamed({ ...withCodes(special, 'e4m3fn', {}), saturate: false }, 'saturating');
});

test('FNUZ, and the two other ways to round', () => {
  const input = Float32Array.of(1, -1, 0.3, -0, 240, 300, 2 ** -10, NaN, 17, 19, -2.125);
  const codes = encode(input.map((x) => Math.max(-240, Math.min(240, x)) * 2), 'e4m3fn');
  codes.set([0x7f, 0x7f], 4);
  codes[3] = 0;
  codes[7] = 0x80;
  assertNamed({ input, shape: [11], format: 'e4m3fn', codes }, 'FNUZ');
  // 17 and 19 lie between 16, 18 and 20, as -2.125 does between -2 and -2.25; 0.3 is between 0.28125 and 0.3125.
  const ties = Float32Array.of(17, 19, -2.125, 0.3, 450);
  assertNamed({ input: ties, shape: [5], format: 'e4m3fn', codes: encode(Float32Array.of(18, 20, -2.25, 0.3125, 448), 'e4m3fn') }, 'round-half-away');
  assertNamed({ input: ties, shape: [5], format: 'e4m3fn', codes: encode(Float32Array.of(16, 18, -2, 0.28125, 448), 'e4m3fn') }, 'truncation');
  const halves = Float32Array.of(0.5, 1.5, 2.5, -2.5, 3.75, -200, 127, 5);
  const int8 = { input: halves, shape: [1, 8], format: 'int8', granularity: 'tensor', scales: Float32Array.of(1) } as const;
  // A smaller scale takes ties away from zero as well.
  assertNamed({ ...int8, codes: Int8Array.of(1, 2, 3, -3, 4, -127, 127, 5) }, 'round-half-away', 'scale one ulp off');
  assertNamed({ ...int8, codes: Int8Array.of(0, 1, 2, -2, 3, -127, 127, 5) }, 'truncation');
});

const [tokens, heads, dim] = [128, 4, 64];
const shape = [tokens, heads, dim];
/** The first of a row is its largest, the others lie as near as can be to the middle between two codes: there it shows how a quotient is rounded. */
function nearTies(): Float32Array {
  const values = new Float32Array(tokens * heads * dim);
  for (let start = 0; start < values.length; start += dim) {
    values[start] = 1 + numbers.uniform();
    const scale = Math.fround(values[start] / 448);
    for (let i = 1; i < dim; i++) values[start + i] = (numbers.integer(2) === 0 ? scale : -scale) * (8.5 + numbers.integer(8)) * 2 ** (numbers.integer(11) - 6);
  }
  return values;
}
const input = nearTies();
const row = (r: number): Float32Array => input.subarray(r * dim, (r + 1) * dim);
const rightScales = quantize(input, { rowLength: dim }).scales;
const computed = { input, shape, granularity: 'token-head' } as const;

/** Codes of rows that are multiplied with a factor each. */
function multiplied(factor: (scale: number, amax: number) => number, format: 'e4m3fn' | 'e5m2' = 'e4m3fn', scales = rightScales): Uint8Array {
  return encode(input.map((x, i) => Math.fround(x * factor(scales[Math.floor(i / dim)], row(Math.floor(i / dim)).reduce((a, b) => Math.max(a, Math.abs(b)), 0)))), format);
}

test('a product in place of a quotient, and the reverse', () => {
  assertNamed({ ...computed, scales: rightScales, codes: multiplied((scale) => Math.fround(1 / scale)) }, 'reciprocal');
  assertNamed({ ...computed, scales: rightScales, codes: multiplied((_, amax) => Math.fround(448 / amax)) }, 'max-over-amax');
  const given = rightScales.slice(0, 1);
  const first = { input: row(0), shape: [1, 1, dim], granularity: 'tensor', scales: given } as const;
  const { codes: products } = quantize(row(0), { rowLength: dim, scale: given[0], quotient: 'reciprocal' });
  ok(names(checkCodes({ ...first, codes: products })).includes('reciprocal'));
  const { codes } = quantize(input, { rowLength: dim });
  ok(names(checkCodes({ ...computed, recipe: 'vllm-token-head', scales: rightScales, codes })).includes('divide'));
});

const nextUp = (scales: Float32Array, steps: (i: number) => number): Float32Array => new Float32Array(new Uint32Array(scales.slice().buffer).map((word, i) => word + steps(i)).buffer);
const toHalf = (scale: number): number => {
  const half = halfOf(scale);
  const exponent = half >> 10;
  return exponent === 0 ? half * 2 ** -24 : (1 + (half & 0x3ff) / 1024) * 2 ** (exponent - 15);
};

test('scales one ulp off, or rounded to f16', () => {
  const off = nextUp(rightScales, (i) => (i % 3) - 1);
  assertNamed({ ...computed, scales: off, codes: dividedRows(input, dim, 'e4m3fn', (r) => off[r]) }, 'scale one ulp off');
  const up = nextUp(rightScales, () => 1);
  ok(names(checkCodes({ ...computed, codes: dividedRows(input, dim, 'e4m3fn', (r) => up[r]) })).includes('scale one ulp off'));
  const halves = rightScales.map(toHalf);
  const halfCodes = dividedRows(input, dim, 'e4m3fn', (r) => halves[r]);
  assertNamed({ ...computed, scales: halves, codes: halfCodes }, 'f16-rounded scale');
  assertNamed({ ...computed, codes: halfCodes }, 'f16-rounded scale');
  assertNamed({ ...computed, scales: rightScales, codes: halfCodes }, 'divided by an f16 scale');
  assertNamed({ ...computed, scales: halves, codes: quantize(input, { rowLength: dim }).codes }, 'scale stored as f16');
  const given = Float32Array.of(0.01, 0.0123, 0.02, 0.0351);
  assertNamed({ ...computed, granularity: 'head', scales: given, codes: dividedRows(input, dim, 'e4m3fn', (r) => toHalf(given[r % heads])) }, 'f16-rounded scale');
});

/** [a, b, width] as [b, a, width]. */
function swapped<T extends Uint8Array | Float32Array>(rows: T, a: number, b: number, width: number): T {
  return rows.map((_, i) => rows[(Math.floor(i / width) % a) * b * width + Math.floor(i / width / a) * width + (i % width)]) as T;
}

test('heads before tokens, and the reverse', () => {
  const { codes, scales } = quantize(input, { rowLength: dim });
  const written = { scales: swapped(scales, tokens, heads, 1), codes: swapped(codes, tokens, heads, dim) };
  assertNamed({ ...computed, ...written }, 'HND for NHD');
  assertNamed({ ...computed, ...written, shape: [tokens, heads, dim], layout: 'HND' }, 'NHD for HND');
  const read = quantize(swapped(input, heads, tokens, dim), { rowLength: dim });
  assertNamed({ ...computed, ...read }, 'HND for NHD');
  assertNamed({ ...computed, ...read, layout: 'HND' }, 'NHD for HND');
});

test('what no dialect explains is said to be explained in part, or not at all', () => {
  const { codes } = quantize(input, { rowLength: dim });
  const wrong = multiplied((scale) => Math.fround(1 / scale));
  const count = wrong.filter((code, i) => code !== codes[i]).length;
  wrong[0] ^= 0x08;
  const { explanation, differing, first } = checkCodes({ ...computed, scales: rightScales, codes: wrong });
  equal(explanation!.all, []);
  is(explanation!.most!.name, 'reciprocal');
  is(explanation!.most!.explained, count);
  is(explanation!.most!.contradicted, 0);
  is(differing.codes, count + 1);
  equal(first[0].at, [0, 0, 0]);
  is(first[0].input, `0x${new Uint32Array(input.slice(0, 1).buffer)[0].toString(16).padStart(8, '0')}`);
  const one = Uint8Array.from(codes);
  one[77] ^= 0x40;
  const alone = checkCodes({ ...computed, scales: rightScales, codes: one });
  equal(alone.explanation, { all: [], most: undefined });
  equal(alone.first.map(({ at }) => at), [[0, 1, 13]]);
});

test('every dialect says what it is and where it is from, once', () => {
  is(new Set(dialects.map(({ name }) => name)).size, dialects.length);
  for (const { summary, source } of dialects) ok(summary.length > 10 && source.length > 5);
});

test('refuses what does not fit', () => {
  const call = { input: new Float32Array(16), shape: [2, 8], codes: new Uint8Array(16) };
  throws(() => checkCodes({ ...call, shape: [3, 8] }), /"input" expected 24 elements, got 16/);
  throws(() => checkCodes({ ...call, codes: new Uint8Array(15) }), /"codes" expected 16 elements, got 15/);
  throws(() => checkCodes({ ...call, codes: new Float32Array(16) as never }), /"codes" expected a Uint8Array, or an Int8Array, got Float32Array/);
  throws(() => checkCodes({ ...call, shape: undefined as never }), /"shape" expected an array of sizes, got undefined/);
  throws(() => checkCodes({ ...call, granularity: 'token-head', scales: [1, 1] as never }), /"scales" expected a Float32Array, got/);
  throws(() => checkCodes({ ...call, granularity: 'tensor' }), /"scales" expected those that values are divided by/);
  throws(() => checkCodes({ ...call, granularity: 'token-head', scales: new Float32Array(3) }), /"scales" expected 2 elements, got 3/);
  throws(() => checkCodes({ ...call, granularity: 'group', groupSize: 3 }), /"groupSize" expected a divisor of 8/);
  throws(() => checkCodes({ ...call, recipe: 'amax' }), /"recipe" expected to be absent without "granularity"/);
  throws(() => checkCodes({ ...call, saturate: false, granularity: 'token-head' }), /"saturate"/);
  throws(() => checkCodes({ ...call, granularity: 'token-head', recipe: 'ferrum-int8' }), /"recipe" expected/);
});
