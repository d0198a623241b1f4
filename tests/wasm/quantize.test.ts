import { equal, is, ok, throws } from 'uvu/assert';
import { decode, quantize, recipes, type FloatArray, type FloatDtype, type QuantizeOptions, type Recipe, type RecipeName } from '../../src/index.js';
import { parseSafetensors, type SafetensorsFile } from '../../src/files/safetensors.js';
import { float32, int32, uint16 } from '../../src/files/tensor.js';
import { assertSameBits } from '../bits.js';
import { golden, goldenFiles } from '../golden.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('wasm/quantize');
const formats = ['e4m3fn', 'e5m2'] as const;

const guards: { readonly [guard: string]: Omit<Recipe, 'name' | 'quotient'> } = {
  raw: { amaxFloor: 0, scaleFloor: 0, scaleIfZero: 0 },
  one: { amaxFloor: 0, scaleFloor: 0, scaleIfZero: 1 },
  'eps1e-12': { amaxFloor: 1e-12, scaleFloor: 0, scaleIfZero: 0 },
};
const quotients = { div: 'divide', mulinv: 'reciprocal', mulrcp: 'max-over-amax' } as const;

function inputOf(file: SafetensorsFile): { x: FloatArray; from: FloatDtype; rowLength: number } {
  const tensor = file.tensors.get('x')!;
  const from = tensor.dtype.toLowerCase() as FloatDtype;
  return { x: from === 'f32' ? float32(tensor) : uint16(tensor), from, rowLength: tensor.shape[1] };
}

const files = goldenFiles('quantize');

test('all 15 golden files are here', () => {
  is(files.length, 15);
});

for (const path of files) {
  const file = parseSafetensors(golden(path), path);
  const { x, from, rowLength } = inputOf(file);
  const codes = (name: string): Uint8Array => file.tensors.get(name)!.data;
  const scales = (name: string): Float32Array => float32(file.tensors.get(name)!);

  for (const format of formats) {
    test(`${path} ${format}: scale bits and codes of every computed rule`, () => {
      for (const [guard, bounds] of Object.entries(guards)) {
        for (const [rule, quotient] of Object.entries(quotients)) {
          const name = `${format}.ignore_nan.${guard}`;
          const actual = quantize(x, { format, rowLength, from, recipe: { name, ...bounds, quotient } });
          assertSameBits(actual.scales, scales(`${name}.scale`), `${name}.scale`);
          assertSameBits(actual.codes, codes(`${name}.${rule}`), `${name}.${rule}`);
          // Rows that are quantized together take a slower path when one of them is out of range: each alone takes its own.
          for (let row = 0; row < x.length; row += rowLength) {
            const alone = quantize(x.subarray(row, row + rowLength), { format, rowLength, from, recipe: { name, ...bounds, quotient } });
            assertSameBits(alone.codes, actual.codes.subarray(row, row + rowLength), `${name}.${rule}, row ${row / rowLength} alone`);
          }
        }
      }
    });

    test(`${path} ${format}: given scales`, () => {
      for (const [rule, quotient] of [['div', 'divide'], ['mulinv', 'reciprocal']] as const) {
        const expected = codes(`${format}.static.${rule}`);
        for (const [row, scale] of scales('static_scale').entries()) {
          const part = [row * rowLength, (row + 1) * rowLength] as const;
          const actual = quantize(x.subarray(...part), { format, rowLength, from, scale, quotient });
          assertSameBits(actual.codes, expected.subarray(...part), `${format}.static.${rule} row ${row}`);
          is(actual.scales[0], scale);
        }
      }
    });
  }
}

const fp8Recipes = (Object.keys(recipes) as RecipeName[]).filter((name) => name !== 'ferrum-int8');

test('the named recipes are the golden rules of that name', () => {
  const file = parseSafetensors(golden('quantize/f32_D64.safetensors'), 'f32_D64');
  const { x, rowLength } = inputOf(file);
  for (const [recipe, name] of [['amax', 'one.div'], ['max-over-amax', 'one.mulrcp'], ['mila-activation', 'eps1e-12.mulinv']] as const) {
    const actual = quantize(x, { rowLength, recipe });
    assertSameBits(actual.codes, file.tensors.get(`e4m3fn.ignore_nan.${name}`)!.data, recipe);
  }
});

for (const path of goldenFiles('recipes')) {
  test(`${path}: every FP8 recipe`, () => {
    const file = parseSafetensors(golden(path), path);
    const { x, from, rowLength } = inputOf(file);
    let compared = 0;
    for (const recipe of fp8Recipes) {
      for (const format of formats) {
        const expected = file.tensors.get(`${recipe}.${format}.codes`);
        if (expected === undefined) continue;
        const actual = quantize(x, { format, rowLength, from, recipe });
        assertSameBits(actual.scales, float32(file.tensors.get(`${recipe}.${format}.scale`)!), `${recipe} ${format} scale`);
        assertSameBits(actual.codes, expected.data, `${recipe} ${format}`);
        compared++;
      }
    }
    is(compared, 7);
  });
}

for (const path of goldenFiles('recipes')) {
  test(`${path}: every recipe for int8`, () => {
    const file = parseSafetensors(golden(path), path);
    const { x, from, rowLength } = inputOf(file);
    for (const recipe of ['amax', 'vllm-token-head', 'compressed-tensors', 'ferrum-int8'] as const) {
      const name = `${recipe}.int8`;
      const codes = new Int8Array(file.tensors.get(`${name}.codes`)!.data);
      const scales = float32(file.tensors.get(`${name}.scale`)!);
      for (const [i, row] of int32(file.tensors.get(`${name}.rows`)!).entries()) {
        const actual = quantize(x.subarray(row * rowLength, (row + 1) * rowLength), { format: 'int8', rowLength, from, recipe });
        assertSameBits(actual.codes, codes.slice(i * rowLength, (i + 1) * rowLength), `${name}, row ${row}`);
        assertSameBits(actual.scales, scales.slice(i, i + 1), `${name}, row ${row}, scale`);
        is(actual.nan, 0);
      }
    }
  });
}

test('int8: NaN is 0 and counted', () => {
  const x = new Float32Array(16).fill(1);
  x[3] = x[9] = NaN;
  const { codes, nan } = quantize(x, { format: 'int8', rowLength: 8, scale: 0.5 });
  is(nan, 2);
  assertSameBits(codes, Int8Array.from(x, (value) => (Number.isNaN(value) ? 0 : 2)));
  is(quantize(Uint16Array.of(0x7e00, 0, 0, 0, 0, 0, 0, 0xfc00), { format: 'int8', rowLength: 8, from: 'f16', scale: 1 }).nan, 1);
});

test('rows do not depend on those beside them: in range, clipped, with NaN, infinite, zero', () => {
  const numbers = random(11);
  for (const from of ['f32', 'f16', 'bf16'] as const) {
    for (const rowLength of [8, 24, 128]) {
      const rows = 37;
      const floats = numbers.normals(rows * rowLength);
      const words = new Uint32Array(floats.buffer);
      const x = from === 'f32' ? floats : Uint16Array.from(words, (word) => (from === 'bf16' ? word >>> 16 : (word >>> 16) & 0xbfff));
      const odd = from === 'f32' ? [NaN, -Infinity, 0, 1e30] : from === 'f16' ? [0xfe01, 0x7c00, 0, 0xfbff] : [0xff81, 0xff80, 0, 0x7e00];
      for (let row = 0; row < rows; row += 5) {
        if (row % 3 === 0) x.fill(0, row * rowLength, (row + 1) * rowLength);
        else x[row * rowLength + numbers.integer(rowLength)] = odd[numbers.integer(4)];
      }
      const settings: Omit<QuantizeOptions, 'rowLength'>[] = [...fp8Recipes.map((recipe) => ({ recipe })), { scale: 0.004 }, { scale: 1e-41, quotient: 'reciprocal' }];
      for (const format of formats) {
        for (const setting of settings) {
          const together = quantize(x, { ...setting, format, rowLength, from });
          for (let row = 0; row < rows; row++) {
            const part = [row * rowLength, (row + 1) * rowLength] as const;
            const alone = quantize(x.subarray(...part), { ...setting, format, rowLength, from });
            assertSameBits(together.codes.subarray(...part), alone.codes, `${from} ${format} ${JSON.stringify(setting)} row ${row}`);
            is(Object.is(together.scales[setting.scale === undefined ? row : 0], alone.scales[0]), true);
          }
        }
      }
    }
  }
});

test('an infinite value makes its row read back as NaN, and only its row', () => {
  const x = new Float32Array(24).fill(1.5);
  x[3] = -Infinity;
  const { codes, scales } = quantize(x, { rowLength: 8 });
  is(scales[0], Infinity);
  const back = decode(codes, 'e4m3fn').map((value, i) => value * scales[i >> 3]);
  ok(back.subarray(0, 8).every(Number.isNaN));
  ok(back.subarray(8).every((value) => Math.abs(value - 1.5) < 1e-6));
});

test('int8 codes may take the place of the values: NaN are counted all the same', () => {
  const x = Float32Array.from({ length: 64 }, (_, i) => (i % 9 === 4 ? NaN : i - 30));
  const expected = quantize(x.slice(), { rowLength: 16, format: 'int8' });
  const { codes, nan } = quantize(x, { rowLength: 16, format: 'int8', out: new Int8Array(x.buffer, 0, 64) });
  equal(codes, expected.codes);
  is(nan, 7);
});

test('bad arguments are refused by name', () => {
  throws(() => quantize(new Float32Array(8), undefined as never), /"options" expected \{ rowLength \}, got undefined/);
  const x = new Float32Array(16);
  throws(() => quantize(x, { rowLength: 5 }), /"rowLength" expected a multiple of 8 that divides 16, got number 5/);
  throws(() => quantize(x, { rowLength: 24 }), /"rowLength"/);
  throws(() => quantize(x, { rowLength: 8, recipe: 'best' as 'amax' }), /"recipe" expected one of amax/);
  throws(() => quantize(x, { rowLength: 8, recipe: { ...recipes.amax, amaxFloor: NaN } }), /"recipe.amaxFloor"/);
  throws(() => quantize(x, { rowLength: 8, recipe: { ...recipes.amax, quotient: 'round' as 'divide' } }), /"recipe.quotient"/);
  throws(() => quantize(x, { rowLength: 8, scale: 1, recipe: 'amax' }), /"recipe" expected to be absent/);
  throws(() => quantize(x, { rowLength: 8, quotient: 'divide' }), /"quotient"/);
  for (const scale of [0, -1, NaN, Infinity, 1e-60]) throws(() => quantize(x, { rowLength: 8, scale }), /"scale" expected a finite scale greater than 0/);
});
