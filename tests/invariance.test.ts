/** Attention's golden cases, and what its bits may depend on: the row alone, on both builds and with any number of threads. */
import { ok } from 'uvu/assert';
import { pageLayout, wasmBackend, type AttendCall, type AttentionOptions, type Backend, type Pages } from '../src/index.js';
import { ThreadedBackend } from '../src/wasm/threads/backend.js';
import { testGolden, testPlacement } from './attention-bits.js';
import { assertSameBits } from './bits.js';
import { builds } from './builds.js';
import { callOf, fixture, type Fixture, type FixtureOptions } from './fixture.js';
import { random } from './random.js';
import { suite } from './suite.js';

for (const simd of builds) {
  testBits(`${simd}, 1 thread`, () => wasmBackend({ simd }));
  // No call is too small here.
  for (const threads of [2, 3]) testBits(`${simd}, ${threads} threads`, () => new ThreadedBackend(simd, threads, 0));
}

function testBits(name: string, open: () => Backend): void {
  const test = suite(`golden and invariant, ${name}`);
  const backend = open();
  test.after(() => backend.dispose());

  testGolden(test, () => backend);
  testPlacement(test, () => backend);

  /** The rows from `row` on of a call on one sequence, as if the later keys were not there yet. */
  function chunk(cache: Fixture, q: Float32Array, rowFloats: number, row: number, rows: number, kvLen: number, attention: AttentionOptions): AttendCall {
    return { ...callOf(cache, [rows], q.subarray(row * rowFloats, (row + rows) * rowFloats)), ...attention, seqUsedK: Int32Array.of(kvLen) };
  }

  const channels = Float32Array.from({ length: 2 * 40 }, (_, i) => 0.02 * 1.1 ** (i % 31));
  for (const [name, attention, sides] of [
    ['plain', {}, {}],
    // Rows of one block then begin in different tiles.
    ['window, softcap, sinks', { windowLeft: 101, softcap: 8, sinks: Float32Array.of(0.5, -1, 2, 0, 1, 3) }, {}],
    ['ALiBi, scales per channel and group', { alibiSlopes: Float32Array.of(0.5, 0.1, 2, 0, 0.01, -0.1), windowLeft: 101 },
      { k: { granularity: 'channel' }, kScale: channels, v: { dtype: 'e5m2', granularity: 'group', groupSize: 8 } }],
    ['scales per group and head, softcap', { softcap: 8 },
      { k: { dtype: 'int8', granularity: 'group', groupSize: 8 }, v: { granularity: 'head' }, vScale: Float32Array.of(0.02, 3) }],
    ['int8 per channel', {}, { k: { dtype: 'int8', granularity: 'channel' }, kScale: channels, v: { dtype: 'int8', granularity: 'channel' }, vScale: channels }],
  ] as const satisfies readonly [string, AttentionOptions, Partial<FixtureOptions>][]) {
    test(`invariance: one prefill, chunks of 1, 7 and 64, and decode give the same bits (${name})`, async () => {
      const [kvHeads, queryHeads, headDim, tokens] = [2, 6, 40, 300];
      const numbers = random(11);
      const cache = await fixture(backend, numbers, { kvHeads, headDim, blockSize: 16, kvLens: [tokens], ...sides });
      const rowFloats = queryHeads * headDim;
      const q = numbers.normals(tokens * rowFloats);
      const whole = await backend.attend(chunk(cache, q, rowFloats, 0, tokens, tokens, attention));
      for (const size of [1, 7, 64]) {
        for (let row = 0; row < tokens; row += size) {
          const rows = Math.min(size, tokens - row);
          const part = await backend.attend(chunk(cache, q, rowFloats, row, rows, row + rows, attention));
          assertSameBits(part.out, whole.out.subarray(row * rowFloats, (row + rows) * rowFloats), `chunk of ${size} at ${row}`);
          assertSameBits(part.lse, whole.lse.subarray(row * queryHeads, (row + rows) * queryHeads), `lse, chunk of ${size} at ${row}`);
        }
      }
      cache.pages.dispose();
    });
  }

  test('invariance over more keys than one cut, with a window that begins in another cut for each row', async () => {
    const [queryHeads, headDim, tokens, rows] = [2, 8, 4200, 90];
    const cache = await fixture(backend, random(14), { kvHeads: 1, headDim, blockSize: 16, kvLens: [tokens] });
    const rowFloats = queryHeads * headDim;
    const q = random(15).normals(rows * rowFloats);
    for (const attention of [{}, { windowLeft: 2100 }, { windowLeft: 90 }]) {
      const whole = await backend.attend(chunk(cache, q, rowFloats, 0, rows, tokens, attention));
      for (let row = 0; row < rows; row++) {
        const alone = await backend.attend(chunk(cache, q, rowFloats, row, 1, tokens - rows + row + 1, attention));
        assertSameBits(alone.out, whole.out.subarray(row * rowFloats, (row + 1) * rowFloats), `row ${row} ${JSON.stringify(attention)}`);
      }
    }
  });

  /** 300 tokens of one sequence, values times powers of two. */
  async function scaledCache(values: (token: number) => number): Promise<{ pages: Pages; call: (q: Float32Array, kvLen: number) => AttendCall }> {
    const [kvHeads, headDim, tokens] = [1, 24, 300];
    const numbers = random(16);
    const pages = backend.createPages(pageLayout({ kvHeads, headDim, blockSize: 16 }), 19);
    const key = numbers.normals(tokens * headDim);
    const value = numbers.normals(tokens * headDim).map((x, i) => x * values(Math.floor(i / headDim)));
    await backend.append({ pages, key, value, slotMapping: Int32Array.from({ length: tokens }, (_, i) => i) });
    const blockTable = Int32Array.from({ length: 19 }, (_, i) => i);
    const call = (q: Float32Array, kvLen: number): AttendCall => ({
      pages, q, blockTable, cuSeqlensQ: Int32Array.of(0, q.length / (2 * headDim)), seqUsedK: Int32Array.of(kvLen),
    });
    return { pages, call };
  }

  const times = (x: Float32Array, by: number): Float32Array => x.map((value) => value * by);

  test('queries and values of any size give the same bits, times a power of two', async () => {
    const small = await scaledCache(() => 1);
    const large = await scaledCache(() => 2 ** 100);
    // Few rows multiply codes as they are, many a decoded tile.
    for (const rows of [1, 40]) {
      const q = random(17).normals(rows * 2 * 24);
      const expected = await backend.attend(small.call(q, 300));
      for (const exponent of [90, -90]) {
        const scaled = await backend.attend({ ...small.call(times(q, 2 ** exponent), 300), softmaxScale: 2 ** -exponent / Math.sqrt(24) });
        assertSameBits(scaled.out, expected.out, `${rows} rows of q times 2^${exponent}`);
        assertSameBits(scaled.lse, expected.lse);
      }
      assertSameBits((await backend.attend(large.call(q, 300))).out, times(expected.out, 2 ** 100), `${rows} rows, values times 2^100`);
    }
    small.pages.dispose();
    large.pages.dispose();
  });

  test('invariance where some values are huge, and seen by some rows only', async () => {
    const cache = await scaledCache((token) => (token % 90 === 80 ? 2 ** 110 : token % 7 === 0 ? 2 ** -90 : 1));
    const rowFloats = 2 * 24;
    const q = random(18).normals(300 * rowFloats);
    const whole = await backend.attend(cache.call(q, 300));
    for (let row = 0; row < 300; row += 3) {
      const alone = await backend.attend(cache.call(q.subarray(row * rowFloats, (row + 1) * rowFloats), row + 1));
      assertSameBits(alone.out, whole.out.subarray(row * rowFloats, (row + 1) * rowFloats), `row ${row}`);
    }
    ok(whole.out.every(Number.isFinite));
    cache.pages.dispose();
  });
}
