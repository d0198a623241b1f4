import { is, ok, throws } from 'uvu/assert';
import { pageLayout, wasmBackend, type AttendCall } from '../src/index.js';
import { ATTENTION_BOUND, attentionError } from '../src/files/compare.js';
import { fewShapes, manyGranularShapes, testAgainstReference } from './attention-reference.js';
import { assertSameBits } from './bits.js';
import { builds } from './builds.js';
import { callOf, fixture } from './fixture.js';
import { random } from './random.js';
import { referenceAttention } from './reference/attention.js';
import { suite } from './suite.js';

for (const simd of builds) testAttention(simd);

function testAttention(simd: (typeof builds)[number]): void {
  const test = suite(`attend, ${simd}`);
  const backend = wasmBackend({ simd });

  // Builds differ in how products are added up, not in what is done for which shape.
  if (simd === 'baseline') testAgainstReference(test, () => backend, undefined, manyGranularShapes);
  else testAgainstReference(test, () => backend, fewShapes);

  test('q in f16 and bf16 is widened exactly', async () => {
    const cache = await fixture(backend, random(21), { kvHeads: 1, headDim: 16, blockSize: 4, kvLens: [9] });
    const q = Float32Array.from({ length: 32 }, (_, i) => (i - 16) / 8);
    const bits = new Uint32Array(q.buffer);
    const expected = backend.attend(callOf(cache, [1], q));
    const bf16 = backend.attend({ ...callOf(cache, [1], q), q: Uint16Array.from(bits, (word) => word >>> 16), dtype: 'bf16' });
    assertSameBits(bf16.out, expected.out);
    const f16Bits = Uint16Array.from(bits, (word) => ((word >>> 16) & 0x8000) | (word & 0x7fffffff ? ((word >>> 13) & 0x3ffff) - (112 << 10) : 0));
    assertSameBits(backend.attend({ ...callOf(cache, [1], q), q: f16Bits, dtype: 'f16' }).out, expected.out);
  });

  test('what a row cannot see does not reach it, what it sees does', async () => {
    const cache = await fixture(backend, random(31), { kvHeads: 2, headDim: 16, blockSize: 4, kvLens: [10] });
    const { stored, blockTable } = cache;
    const keyCache = stored.keyCache.slice() as Uint8Array;
    const valueCache = stored.valueCache.slice() as Uint8Array;
    const at = (j: number, head: number, d: number): number => ((blockTable[j >> 2] * 4 + (j & 3)) * 2 + head) * 16 + d;
    keyCache[at(7, 0, 3)] = 0xff;
    valueCache[at(8, 1, 5)] = 0x7f;
    cache.pages.import({ ...stored, keyCache, valueCache });
    const q = random(32).normals(10 * 2 * 16);
    const { out, lse } = backend.attend(callOf(cache, [10], q));
    for (let row = 0; row < 10; row++) {
      for (let head = 0; head < 2; head++) {
        for (let d = 0; d < 16; d++) {
          const nan = (head === 0 && row >= 7) || (head === 1 && row >= 8 && d === 5);
          is(Number.isNaN(out[(row * 2 + head) * 16 + d]), nan, `row ${row} head ${head} dim ${d}`);
        }
        is(Number.isNaN(lse[row * 2 + head]), head === 0 && row >= 7);
      }
    }
  });

  test('group scales, too: what a row cannot see does not reach it, what it sees does', async () => {
    const side = { granularity: 'group', groupSize: 8 } as const;
    const cache = await fixture(backend, random(33), { kvHeads: 2, headDim: 16, blockSize: 4, kvLens: [40], k: side, v: { ...side, dtype: 'int8' } });
    const { stored, blockTable } = cache;
    const keyScale = stored.keyScale!.slice();
    const valueScale = stored.valueScale!.slice();
    const at = (j: number, head: number, group: number): number => ((blockTable[j >> 2] * 4 + (j & 3)) * 2 + head) * 2 + group;
    keyScale[at(7, 0, 1)] = NaN;
    valueScale[at(8, 1, 1)] = Infinity;
    await cache.pages.import({ ...stored, keyScale, valueScale });
    const q = random(32).normals(40 * 2 * 16);
    // Many rows together, and each alone.
    const { out } = backend.attend(callOf(cache, [40], q));
    for (let row = 0; row < 40; row++) {
      const alone = backend.attend({ ...callOf(cache, [1], q.subarray(row * 32, row * 32 + 32)), seqUsedK: Int32Array.of(row + 1) });
      assertSameBits(alone.out, out.subarray(row * 32, row * 32 + 32), `row ${row}`);
      for (let i = 0; i < 32; i++) {
        const [head, d] = [i >> 4, i & 15];
        is(Number.isFinite(alone.out[i]), !((head === 0 && row >= 7) || (head === 1 && row >= 8 && d >= 8)), `row ${row} head ${head} dim ${d}`);
      }
    }
    cache.pages.dispose();
  });

  test('given scales of any size give the same bits, times a power of two', async () => {
    const [kvHeads, headDim] = [2, 24];
    for (const granularity of ['head', 'channel'] as const) {
      for (const dtype of ['e4m3fn', 'int8'] as const) {
        const scale = Float32Array.from({ length: granularity === 'head' ? kvHeads : kvHeads * headDim }, (_, i) => 0.03 * 1.1 ** (i % 31));
        const side = { dtype, granularity };
        const cache = await fixture(backend, random(63), { kvHeads, headDim, blockSize: 8, kvLens: [50], k: side, v: side, kScale: scale, vScale: scale });
        for (const rows of [1, 30]) {
          const call = callOf(cache, [rows], random(64).normals(rows * 2 * kvHeads * headDim));
          const expected = backend.attend(call);
          // The smallest scales still are normal numbers, and scores as well as results are in range.
          for (const exponent of [110, -110]) {
            const kScale = scale.map((x) => x * 2 ** exponent);
            const scaled = backend.attend({ ...call, kScale, vScale: kScale, softmaxScale: 2 ** -exponent / Math.sqrt(headDim) });
            assertSameBits(scaled.out, expected.out.map((x) => x * 2 ** exponent), `${granularity} ${dtype}, scales times 2^${exponent}`);
            assertSameBits(scaled.lse, expected.lse);
          }
        }
        cache.pages.dispose();
      }
    }
  });

  test('without a block table, sequence s has page s', async () => {
    const cache = await fixture(backend, random(53), { kvHeads: 1, headDim: 16, blockSize: 40, kvLens: [40, 3, 17], sparePages: 0 });
    const call = { ...callOf(cache, [2, 1, 17], random(54).normals(20 * 16)), seqUsedK: Int32Array.of(2, 3, 17) };
    const contiguous = { ...call, blockTable: undefined };
    assertSameBits(backend.attend(contiguous).out, backend.attend({ ...call, blockTable: Int32Array.of(0, 1, 2) }).out);
    throws(() => backend.attend({ ...contiguous, seqUsedK: Int32Array.of(2, 41, 17) }), /"seqUsedK\[1\]" expected an integer from 0 to 40/);
  });

  test('rows that see nothing: out 0, lse −∞ or the sink', async () => {
    const cache = await fixture(backend, random(41), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [2, 0] });
    const q = random(42).normals(6 * 8);
    const call = callOf(cache, [4, 2], q);
    const plain = backend.attend(call);
    for (const row of [0, 1, 4, 5]) {
      assertSameBits(plain.out.subarray(row * 8, row * 8 + 8), new Float32Array(8), `row ${row}`);
      is(plain.lse[row], -Infinity);
    }
    const withSink = backend.attend({ ...call, sinks: Float32Array.of(0.25) });
    for (const row of [0, 1, 4, 5]) is(withSink.lse[row], 0.25);
    ok(Number.isFinite(plain.lse[2]) && Number.isFinite(plain.lse[3]));
  });

  test('pages before the window need not be there', async () => {
    const cache = await fixture(backend, random(51), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [40] });
    const call = { ...callOf(cache, [1], random(52).normals(8)), windowLeft: 6 };
    const expected = backend.attend(call);
    const evicted = cache.blockTable.slice().fill(-1, 0, 8);
    assertSameBits(backend.attend({ ...call, blockTable: evicted }).out, expected.out);
    throws(() => backend.attend({ ...call, blockTable: evicted, windowLeft: 8 }), /"blockTable" expected a page from 0 to 12 for sequence 0, block 7, got -1/);
  });

  test('given scales multiply keys and values', async () => {
    const side = { dtype: 'e4m3fn', granularity: 'tensor' } as const;
    const cache = await fixture(backend, random(61), { kvHeads: 1, headDim: 16, blockSize: 4, kvLens: [20], k: side, v: side });
    const q = random(62).normals(16);
    const { out } = backend.attend({ ...callOf(cache, [1], q), kScale: 0.5, vScale: 3 });
    const expected = referenceAttention({
      q, queryHeads: 1, kvHeads: 1, headDim: 16, kvLen: 20,
      key: (j, head, d) => 0.5 * cache.valueAt('k', 0, j, head, d), value: (j, head, d) => 3 * cache.valueAt('v', 0, j, head, d),
    });
    ok(attentionError({ out, lse: out }, { out: Float32Array.from(expected.out) }, 16).out <= ATTENTION_BOUND);
  });

  test('a call that does not fit is refused by name, and out stays as it was', async () => {
    const cache = await fixture(backend, random(71), { kvHeads: 2, headDim: 8, blockSize: 4, kvLens: [5, 6] });
    const call = callOf(cache, [1, 2], random(72).normals(3 * 4 * 8));
    const out = new Float32Array(3 * 4 * 8).fill(7);
    const refused = (change: Partial<AttendCall>, message: RegExp): void => {
      throws(() => backend.attend({ ...call, out, ...change }), message);
      ok(out.every((value) => value === 7));
    };
    refused({ q: new Float32Array(10) }, /"q" expected 3 rows × a multiple of 2 heads × 8/);
    refused({ q: new Float32Array(3 * 3 * 8) }, /"q" expected/);
    refused({ q: new Uint16Array(3 * 4 * 8) }, /expected f16 or bf16/);
    refused({ cuSeqlensQ: Int32Array.of(1, 2, 3) }, /"cuSeqlensQ" expected to begin with 0/);
    refused({ cuSeqlensQ: Int32Array.of(0, 3, 2) }, /"cuSeqlensQ" expected entries that do not fall/);
    refused({ seqUsedK: Int32Array.of(5) }, /"seqUsedK" expected one number per sequence \(2\), got 1/);
    refused({ seqUsedK: Int32Array.of(5, 9) }, /"seqUsedK\[1\]" expected an integer from 0 to 8, got number 9/);
    refused({ seqUsedK: Int32Array.of(5, -1) }, /"seqUsedK\[1\]"/);
    refused({ blockTable: Int32Array.of(0, 1, 2) }, /"blockTable" expected 2 rows of equal length/);
    refused({ blockTable: Int32Array.of(0, 1, 2, 99) }, /"blockTable" expected a page from 0 to 6 for sequence 1, block 1, got 99/);
    refused({ blockTable: Int32Array.of(-1, 1, 2, 3) }, /"blockTable"/);
    refused({ sinks: new Float32Array(3) }, /"sinks" expected one number per query head \(4\), got 3/);
    refused({ softcap: -1 }, /"softcap"/);
    refused({ softcap: NaN }, /"softcap"/);
    refused({ softcap: 1e-50 }, /"softcap" expected 0, or a finite f32/);
    refused({ softmaxScale: '1' as unknown as number }, /"softmaxScale" expected a number, got "1"/);
    refused({ softmaxScale: NaN }, /"softmaxScale"/);
    refused({ windowLeft: -2 }, /"windowLeft"/);
    refused({ windowRight: 1.5 }, /"windowRight"/);
    refused({ causal: 1 as unknown as boolean }, /"causal"/);
    refused({ kScale: 2 }, /"kScale" expected to be absent/);
    refused({ window_left: 2 } as object, /"window_left" expected the name of an option, got an unknown one: is "windowLeft" meant\?/);
    refused({ lse: new Float32Array(3) }, /"lse" expected length 12, got 3/);
    throws(() => backend.attend({ ...call, out: new Float32Array(1) }), /"out" expected length 96, got 1/);
    throws(() => wasmBackend().attend(call), /"pages" expected pages that this backend created/);
    cache.pages.dispose();
    throws(() => backend.attend(call), /disposed of/);
  });

  test('out may be q, or overlap it, also where the work goes through in pieces', async () => {
    const [queryHeads, headDim, rows] = [32, 256, 700];
    const cache = await fixture(backend, random(83), { kvHeads: 1, headDim, blockSize: 16, kvLens: [rows] });
    const floats = rows * queryHeads * headDim;
    const q = random(84).normals(floats);
    const { out } = backend.attend(callOf(cache, [rows], q));
    const halves = Uint16Array.from({ length: floats }, (_, i) => 0x3000 + (i % 0xfff));
    const half = { ...callOf(cache, [rows], new Float32Array(0)), q: halves, dtype: 'f16', outDtype: 'f16', out: undefined } as const;
    const expected = backend.attend<'f16'>(half);
    assertSameBits(backend.attend<'f16'>({ ...half, q: halves, out: halves }).out, expected.out, 'f16');
    for (const shift of [0, headDim, 8 * headDim]) {
      const shared = new Float32Array(floats + shift);
      shared.set(q);
      const overlapping = backend.attend({ ...callOf(cache, [rows], shared.subarray(0, floats)), out: shared.subarray(shift) });
      assertSameBits(overlapping.out, out, `shifted by ${shift}`);
    }
  });

  test('a row whose scores are all −∞ is NaN, not a row that sees nothing', () => {
    const layout = pageLayout({ kvHeads: 1, headDim: 8, blockSize: 1, k: { dtype: 'f32' }, v: { dtype: 'f32' } });
    const pages = backend.createPages(layout, 1);
    pages.import({ keyCache: new Float32Array(8).fill(-Infinity), valueCache: new Float32Array(8) });
    const call = { pages, q: new Float32Array(8).fill(1), blockTable: Int32Array.of(0), cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(1) };
    const { out, lse } = backend.attend(call);
    ok(out.every(Number.isNaN) && Number.isNaN(lse[0]));
    assertSameBits(backend.attend({ ...call, sinks: Float32Array.of(2) }).out, new Float32Array(8));
  });

  test('no rows for some heads, with their sinks', async () => {
    const cache = await fixture(backend, random(82), { kvHeads: 2, headDim: 8, blockSize: 4, kvLens: [3] });
    is(backend.attend({ ...callOf(cache, [0], new Float32Array(0)), sinks: new Float32Array(4) }).lse.length, 0);
  });

  test('no rows, no sequences', async () => {
    const cache = await fixture(backend, random(81), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [3] });
    is(backend.attend(callOf(cache, [0], new Float32Array(0))).out.length, 0);
    const nothing = new Int32Array(0);
    is(backend.attend({ pages: cache.pages, q: new Float32Array(0), blockTable: nothing, cuSeqlensQ: Int32Array.of(0), seqUsedK: nothing }).out.length, 0);
  });
}
