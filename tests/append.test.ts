import { equal, is, ok, throws } from 'uvu/assert';
import { decode, pageLayout, quantize, wasmBackend, type AppendCall, type Format, type NhdTensors } from '../src/index.js';
import { assertSameBits } from './bits.js';
import { builds } from './builds.js';
import { poison } from './fixture.js';
import { testGoldenRecipes } from './golden-recipes.js';
import { random } from './random.js';
import { suite } from './suite.js';

const test = suite('append');
const backend = wasmBackend();

testGoldenRecipes(test, () => backend);

const rowOf = (array: NhdTensors['keyCache'], row: number, headDim: number) => array.subarray(row * headDim, (row + 1) * headDim);

for (const headDim of [8, 24, 64, 80, 128, 256]) {
  test(`headDim ${headDim}: codes and scales are those of quantize, in their slots, and no other byte changes`, () => {
    const [kvHeads, blockSize, blocks, tokens] = [3, 5, 4, 9];
    const layout = pageLayout({ kvHeads, headDim, blockSize, k: { dtype: 'e4m3fn' }, v: { dtype: 'e5m2' } });
    const pages = backend.createPages(layout, blocks);
    pages.import(poison(layout, blocks));
    const numbers = random(headDim);
    const key = numbers.normals(tokens * kvHeads * headDim, 3);
    const value = numbers.normals(tokens * kvHeads * headDim, 0.1);
    const slotMapping = Int32Array.of(19, 0, -1, 7, 6, -5, 12, 4, 11);
    const recipe = { k: 'max-over-amax', v: 'mila-activation' } as const;
    equal(backend.append({ pages, key, value, slotMapping, recipe }), { written: 7, skipped: 2 });
    const k = quantize(key, { rowLength: headDim, recipe: recipe.k });
    const v = quantize(value, { rowLength: headDim, recipe: recipe.v, format: 'e5m2' });
    const stored = pages.export();
    for (let slot = 0; slot < blocks * blockSize; slot++) {
      const token = slotMapping.indexOf(slot);
      for (let head = 0; head < kvHeads; head++) {
        const row = slot * kvHeads + head;
        const from = token * kvHeads + head;
        const nothing = new Uint8Array(headDim).fill(0x7f);
        assertSameBits(rowOf(stored.keyCache, row, headDim), token < 0 ? nothing : rowOf(k.codes, from, headDim), `key, slot ${slot}`);
        assertSameBits(rowOf(stored.valueCache, row, headDim), token < 0 ? nothing : rowOf(v.codes, from, headDim), `value, slot ${slot}`);
        ok(Object.is(stored.keyScale![row], token < 0 ? NaN : k.scales[from]));
        ok(Object.is(stored.valueScale![row], token < 0 ? NaN : v.scales[from]));
      }
    }
    pages.dispose();
  });
}

test('f16 and bf16 input gives the bytes of its widened values', () => {
  const layout = pageLayout({ kvHeads: 2, headDim: 16, blockSize: 8 });
  const bits = Uint16Array.from({ length: 6 * 32 }, (_, i) => (i * 331) & 0xffff);
  const slotMapping = Int32Array.from({ length: 6 }, (_, i) => i);
  for (const dtype of ['f16', 'bf16'] as const) {
    const pages = backend.createPages(layout, 1);
    backend.append({ pages, key: bits, value: bits, dtype, slotMapping });
    const { codes, scales } = quantize(bits, { rowLength: 16, from: dtype });
    const { keyCache, keyScale } = pages.export();
    assertSameBits((keyCache as Uint8Array).subarray(0, codes.length), codes);
    assertSameBits(keyScale!.subarray(0, 12), scales);
  }
});

test('both builds write the same bytes', () => {
  const layout = pageLayout({ kvHeads: 2, headDim: 80, blockSize: 8, v: { dtype: 'e5m2' } });
  const x = random(4).normals(16 * 160, 1e3);
  const written = builds.map((simd) => {
    const each = wasmBackend({ simd });
    const pages = each.createPages(layout, 2);
    each.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 16 }, (_, i) => i), recipe: 'vllm-token-head' });
    return pages.export();
  });
  equal(written[1], written[0]);
  throws(() => wasmBackend({ simd: 'avx' as 'baseline' }), /"simd" expected baseline or relaxed, got "avx"/);
});

test('long prompts go through in pieces and end as one would', () => {
  const layout = pageLayout({ kvHeads: 4, headDim: 64, blockSize: 16 });
  const tokens = 1000;
  const pages = backend.createPages(layout, 63);
  const x = random(5).normals(tokens * 256);
  backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: tokens }, (_, i) => tokens - 1 - i) });
  const { keyCache } = pages.export();
  const { codes } = quantize(x, { rowLength: 64 });
  for (let token = 0; token < tokens; token++) {
    assertSameBits((keyCache as Uint8Array).subarray((tokens - 1 - token) * 256, (tokens - token) * 256), codes.subarray(token * 256, (token + 1) * 256));
  }
});

test('tensor: divided by the given scale, and not stored', () => {
  const side = { dtype: 'e4m3fn', granularity: 'tensor' } as const;
  const layout = pageLayout({ kvHeads: 1, headDim: 8, blockSize: 2, k: side, v: side });
  const pages = backend.createPages(layout, 1);
  const key = random(6).normals(16);
  backend.append({ pages, key, value: key, slotMapping: Int32Array.of(0, 1), kScale: 0.03, vScale: 7 });
  const stored = pages.export();
  assertSameBits(stored.keyCache, quantize(key, { rowLength: 8, scale: 0.03 }).codes);
  assertSameBits(stored.valueCache, quantize(key, { rowLength: 8, scale: 7 }).codes);
  is(stored.keyScale, undefined);
});

for (const [headDim, groupSize] of [[16, 8], [24, 8], [48, 24], [72, 24], [64, 32], [96, 96]]) {
  test(`groups of ${groupSize} of ${headDim} dims: codes and scales are those of quantize, and no other byte changes`, () => {
    const [kvHeads, groups, blocks] = [3, headDim / groupSize, 5];
    // A whole panel, where pages hold such, and tokens by themselves.
    const slotMapping = Int32Array.of(14, 16, 17, 18, 19, 20, 21, 22, 23, -1, 0, 2, 3);
    const side = { dtype: 'e4m3fn', granularity: 'group', groupSize } as const;
    for (const blockSize of [5, 16]) {
      const layout = pageLayout({ kvHeads, headDim, blockSize, k: side, v: { ...side, dtype: 'e5m2' } });
      const floats = random(headDim).normals(slotMapping.length * kvHeads * headDim);
      for (const dtype of ['f32', 'bf16'] as const) {
        const x = dtype === 'f32' ? floats : Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16);
        const pages = backend.createPages(layout, blocks);
        pages.import(poison(layout, blocks));
        backend.append({ pages, key: x, value: x, dtype, slotMapping, recipe: 'vllm-token-head' });
        const stored = pages.export();
        const expected = poison(layout, blocks);
        for (const [format, codes, scales] of [['e4m3fn', expected.keyCache, expected.keyScale], ['e5m2', expected.valueCache, expected.valueScale]] as const) {
          const all = quantize(x, { format, from: dtype, rowLength: groupSize, recipe: 'vllm-token-head' });
          for (const [token, slot] of slotMapping.entries()) {
            if (slot < 0) continue;
            codes.set(all.codes.subarray(token * kvHeads * headDim, (token + 1) * kvHeads * headDim), slot * kvHeads * headDim);
            scales!.set(all.scales.subarray(token * kvHeads * groups, (token + 1) * kvHeads * groups), slot * kvHeads * groups);
          }
        }
        for (const name of ['keyCache', 'valueCache', 'keyScale', 'valueScale'] as const) assertSameBits(stored[name]!, expected[name]!, `${dtype}, pages of ${blockSize}, ${name}`);
        pages.dispose();
      }
    }
  });
}

test('head and channel: divided by the given scales, and not stored; one number is the scale of all', () => {
  const [kvHeads, headDim, blockSize, tokens] = [3, 24, 8, 11];
  const x = random(7).normals(tokens * kvHeads * headDim);
  const slotMapping = Int32Array.from({ length: tokens }, (_, i) => i + 2);
  for (const granularity of ['head', 'channel'] as const) {
    const layout = pageLayout({ kvHeads, headDim, blockSize, k: { granularity }, v: { granularity, dtype: 'e5m2' } });
    const scale = Float32Array.from({ length: granularity === 'head' ? kvHeads : kvHeads * headDim }, (_, i) => 0.01 * 1.3 ** (i % 40));
    const write = (kScale: Float32Array | number, vScale: Float32Array | number): NhdTensors => {
      const pages = backend.createPages(layout, 2);
      backend.append({ pages, key: x, value: x, slotMapping, kScale, vScale });
      const stored = pages.export();
      pages.dispose();
      return stored;
    };
    // Each element is a row of its own kind: what its scale makes of it alone.
    const expected = (format: 'e4m3fn' | 'e5m2') => Uint8Array.from(x, (value, i) => {
      const own = scale[granularity === 'head' ? Math.floor(i / headDim) % kvHeads : i % (kvHeads * headDim)];
      return quantize(new Float32Array(8).fill(value), { format, rowLength: 8, scale: own }).codes[0];
    });
    const written = [2 * kvHeads * headDim, (2 + tokens) * kvHeads * headDim] as const;
    const { keyCache, valueCache, keyScale } = write(scale, scale);
    assertSameBits(keyCache.subarray(...written) as Uint8Array, expected('e4m3fn'), granularity);
    assertSameBits(valueCache.subarray(...written) as Uint8Array, expected('e5m2'), granularity);
    is(keyScale, undefined);
    equal(write(0.25, Float32Array.of(3)), write(scale.map(() => 0.25), scale.map(() => 3)));
  }
});

test('f32 is kept, f16 is rounded to nearest even', () => {
  const layout = pageLayout({ kvHeads: 1, headDim: 16, blockSize: 1, k: { dtype: 'f32' }, v: { dtype: 'f16' } });
  const pages = backend.createPages(layout, 1);
  const x = Float32Array.of(1, -0, 65504, 65519, 65520, -1e30, Infinity, 2 ** -24, 2 ** -25, 3 * 2 ** -25, 1 + 2 ** -11, 1 + 3 * 2 ** -11, NaN, 0.1, -(2 ** -14), 6.1e-5);
  backend.append({ pages, key: x, value: x, slotMapping: Int32Array.of(0) });
  const { keyCache, valueCache } = pages.export();
  assertSameBits(keyCache, x);
  assertSameBits(
    valueCache,
    Uint16Array.of(0x3c00, 0x8000, 0x7bff, 0x7bff, 0x7c00, 0xfc00, 0x7c00, 1, 0, 2, 0x3c00, 0x3c02, 0x7e00, 0x2e66, 0x8400, 0x03ff),
  );
});

test('what does not fit is refused by name, and nothing is written', () => {
  const layout = pageLayout({ kvHeads: 2, headDim: 8, blockSize: 4 });
  const pages = backend.createPages(layout, 2);
  const call: AppendCall = { pages, key: new Float32Array(32).fill(1), value: new Float32Array(32).fill(1), slotMapping: Int32Array.of(3, 5) };
  const before = pages.export();
  const refused = (change: Partial<AppendCall>, message: RegExp): void => {
    throws(() => backend.append({ ...call, ...change }), message);
    equal(pages.export(), before);
  };
  refused({ slotMapping: Int32Array.of(3, 8) }, /"slotMapping\[1\]" expected a slot below 8, got 8/);
  refused({ slotMapping: Int32Array.of(5, 5) }, /"slotMapping\[1\]" expected a slot that no other token has, got 5 again/);
  refused({ slotMapping: [3, 5] as unknown as Int32Array }, /"slotMapping" expected an Int32Array, got Array/);
  refused({ key: new Float32Array(31) }, /"key" expected 2 tokens × 2 heads × 8 = 32 elements, got 31/);
  refused({ value: new Float32Array(33) }, /"value" expected .* got 33/);
  refused({ value: new Uint16Array(32), dtype: 'f16' }, /"key" expected a Uint16Array of f16 bits/);
  refused({ key: new Uint16Array(32), value: new Uint16Array(32) }, /expected f16 or bf16, got undefined/);
  refused({ recipe: 'none' as 'amax' }, /"recipe" expected one of/);
  refused({ kScale: 1 }, /"kScale" expected to be absent/);
  refused({ k_scale: 1 } as object, /"k_scale" expected the name of an option, got an unknown one: is "kScale" meant\?/);
  throws(() => wasmBackend().append(call), /"pages" expected pages that this backend created/);
  equal(backend.append({ ...call, slotMapping: Int32Array.of(-1, -1) }), { written: 0, skipped: 2 });
  equal(pages.export(), before);
  const plain = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 1, k: { dtype: 'f32' }, v: { dtype: 'e4m3fn', granularity: 'tensor' } }), 1);
  const one = { pages: plain, key: new Float32Array(8), value: new Float32Array(8), slotMapping: Int32Array.of(0) };
  throws(() => backend.append({ ...one, kScale: 2 }), /"kScale" expected 1 for f32/);
  for (const vScale of [0, -1, NaN, Infinity]) throws(() => backend.append({ ...one, vScale }), /"vScale" expected a finite scale greater than 0/);
  for (const vScale of [[2], '2', true, Float64Array.of(2)]) throws(() => backend.append({ ...one, vScale: vScale as unknown as number }), /"vScale" expected a number or a Float32Array, got/);
  throws(() => backend.append({ ...one, scalePrecision: 'f8' as 'f16' }), /"scalePrecision" expected one of f32, f16, f16-stored, got "f8"/);
  const own = { name: 'own', amaxFloor: 0, scaleFloor: 0, scaleIfZero: 1, quotient: 'divide' } as const;
  // What f32 does not have.
  throws(() => backend.append({ ...one, recipe: { ...own, amaxFloor: 1e39 } }), /"recipe.amaxFloor" expected a finite number of at least 0, got number 1e\+39/);
  throws(() => backend.append({ ...one, recipe: { ...own, int8: null as never } }), /"recipe.int8" expected an object, or to be absent, got null/);
  throws(() => backend.append({ ...one, recipe: { ...own, int8: { divisor: 1e-46, least: -127 } } }), /"recipe.int8.divisor" expected a finite number greater than 0, got number 1e-46/);
});

test('import and export are each other, for every format and any block size', () => {
  const numbers = random(9);
  for (const [kFormat, vFormat] of [['e4m3fn', 'f32'], ['f16', 'e5m2'], ['f32', 'f16']] as [Format, Format][]) {
    for (const [blockSize, headDim] of [[1, 8], [3, 24], [16, 64]]) {
      const layout = pageLayout({ kvHeads: 2, headDim, blockSize, k: { dtype: kFormat }, v: { dtype: vFormat } });
      const pages = backend.createPages(layout, 5);
      const tensors = poison(layout, 3);
      for (const array of Object.values(tensors)) if (array) for (let i = 0; i < array.length; i++) array[i] = numbers.integer(255);
      pages.import(tensors, 1);
      equal(pages.export(1, 3), tensors);
      pages.copyPages([1, 3], [4, 0]);
      equal(pages.export(0, 1), pages.export(3, 1));
      equal(pages.export(4, 1), pages.export(1, 1));
    }
  }
});

test('import, export and copyPages refuse what does not fit', () => {
  const layout = pageLayout({ kvHeads: 1, headDim: 8, blockSize: 2, v: { dtype: 'f16' } });
  const pages = backend.createPages(layout, 2);
  const tensors = poison(layout, 1);
  throws(() => pages.import({ ...tensors, keyCache: new Float32Array(16) }), /"keyCache" expected a Uint8Array \(e4m3fn\), got Float32Array/);
  throws(() => pages.import({ ...tensors, keyCache: new Uint8Array(15) }), /"keyCache" expected a multiple of 16/);
  throws(() => pages.import({ ...tensors, valueCache: new Uint16Array(32) }), /"valueCache" expected length 16/);
  throws(() => pages.import({ ...tensors, keyScale: undefined }), /"keyScale" expected a Float32Array, got undefined/);
  throws(() => pages.import({ ...tensors, keyScale: new Float32Array(3) }), /"keyScale" expected length 2, got 3/);
  throws(() => pages.import({ ...tensors, valueScale: new Float32Array(2) }), /"valueScale" expected to be absent/);
  throws(() => pages.import(poison(layout, 2), 1), /"firstPage" expected an integer from 0 to 0, got number 1/);
  throws(() => pages.export(1, 2), /"count" expected/);
  throws(() => pages.copyPages([0], [2]), /"to\[0\]" expected an integer from 0 to 1/);
  throws(() => pages.copyPages([0, 1], [1]), /"to" expected 2 pages/);
  ok(decode(pages.export().keyCache as Uint8Array, 'e4m3fn').every((value) => value === 0), 'new pages are zeros');
});

test('shapes that no page can have are refused by name', () => {
  const shape = { kvHeads: 2, headDim: 64, blockSize: 16 };
  throws(() => pageLayout({ ...shape, headDim: 12 }), /"headDim" expected a multiple of 8 from 8 to 256, got number 12/);
  throws(() => pageLayout({ ...shape, headDim: 264 }), /"headDim"/);
  throws(() => pageLayout({ ...shape, kvHeads: 0 }), /"kvHeads"/);
  throws(() => pageLayout({ ...shape, blockSize: 0.5 }), /"blockSize"/);
  throws(() => pageLayout({ ...shape, k: { dtype: 'fp4' as 'fp8' } }), /"k.dtype" expected one of/);
  throws(() => pageLayout({ ...shape, v: { dtype: 'f16', granularity: 'token-head' } }), /"v.granularity" expected tensor for f16/);
  throws(() => pageLayout({ ...shape, k: { granularity: 'row' as 'tensor' } }), /"k.granularity" expected one of tensor, head, channel, token-head, group, got "row"/);
  throws(() => pageLayout({ ...shape, k: { dtype: 'auto' as 'fp8' } }), /"k.dtype" expected one of .*, got "auto", which only the "dtype" of a KvCache may be/);
  const layout = pageLayout(shape);
  throws(() => backend.createPages(layout, 0), /"count"/);
  throws(() => backend.createPages(layout, 2 ** 21), /"pages" expected to fit into WebAssembly memory, got \d+ bytes: \d+ bytes are left of 4 GiB/);
});

test('int8: NaN becomes 0 and is counted, ties go to even, and what recipes do not say is refused', () => {
  const layout = pageLayout({ kvHeads: 1, headDim: 8, blockSize: 8, k: { dtype: 'int8', granularity: 'tensor' }, v: { dtype: 'int8' } });
  const pages = backend.createPages(layout, 1);
  const key = Float32Array.of(-127, -2.6, -2.4, -1.6, -1.4, -0.6, -0.4, 127, 0.5, 1.5, 2.5, -0.5, -1.5, 300, -300, NaN);
  const value = new Float32Array(16).fill(1);
  value[3] = NaN;
  equal(backend.append({ pages, key, value, slotMapping: Int32Array.of(0, 1) }), { written: 2, skipped: 0, nan: 2 });
  equal(backend.append({ pages, key, value, slotMapping: Int32Array.of(-1, 1) }), { written: 1, skipped: 1, nan: 1 });
  for (const [nan, infinities] of [[0, [Infinity, -Infinity]], [1, [NaN, Infinity, -Infinity]]] as const) {
    const given = new Float32Array(8);
    given.set(infinities, 1);
    for (const [dtype, bits] of [['f32', given], ['f16', Uint16Array.from(given, (x) => (Number.isNaN(x) ? 0xfe01 : x === 0 ? 0 : x > 0 ? 0x7c00 : 0xfc00))], ['bf16', Uint16Array.from(given, (x) => (Number.isNaN(x) ? 0xffc0 : x === 0 ? 0 : x > 0 ? 0x7f80 : 0xff80))]] as const) {
      const status = backend.append({ pages, key: bits, value: bits, dtype, slotMapping: Int32Array.of(5) });
      equal(status, { written: 1, skipped: 0, nan: 2 * nan }, `${dtype}, ${infinities}`);
    }
  }
  const { keyCache, valueCache } = pages.export();
  equal([...(keyCache as Int8Array)].slice(0, 16), [-127, -3, -2, -2, -1, -1, 0, 127, 0, 2, 2, 0, -2, 127, -127, 0]);
  equal([...(valueCache as Int8Array)].slice(0, 8), [127, 127, 127, 0, 127, 127, 127, 127]);
  const call = { pages, key, value, slotMapping: Int32Array.of(0, 1) };
  throws(() => backend.append({ ...call, recipe: 'mila-activation' }), /"recipe" expected amax, vllm-token-head, compressed-tensors, ferrum-int8 for int8, got mila-activation/);
  throws(() => quantize(key, { rowLength: 8, recipe: 'ferrum-int8' }), /"recipe" expected .*max-over-amax for e4m3fn, got ferrum-int8/);
  throws(() => pages.import({ keyCache: new Uint8Array(64), valueCache: new Int8Array(64) }), /"keyCache" expected a Int8Array \(int8\), got Uint8Array/);
  pages.dispose();
});
