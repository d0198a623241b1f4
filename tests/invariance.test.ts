/** Attention's golden cases, and what its bits may depend on: the row alone, on both builds and with any number of threads. */
import { is, ok } from 'uvu/assert';
import { wasmBackend, type AttendCall, type AttentionOptions, type Backend } from '../src/index.js';
import { readAttendCase, runAttendCase } from '../src/files/attend-case.js';
import { ATTENTION_BOUND, attentionError } from '../src/files/compare.js';
import { ThreadedBackend } from '../src/wasm/threads/backend.js';
import { assertSameBits } from './bits.js';
import { builds } from './builds.js';
import { callOf, fixture, poison, type Fixture } from './fixture.js';
import { golden, goldenFiles } from './golden.js';
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

  const cases = goldenFiles('attend');
  test('61 golden cases are here', () => {
    is(cases.length, 61);
  });
  for (const path of cases) {
    test(path, async () => {
      const attendCase = readAttendCase(golden(path), path);
      const error = attentionError(await runAttendCase(backend, attendCase), attendCase.expected, attendCase.layout.headDim);
      ok(error.out <= ATTENTION_BOUND, `out ${error.out}`);
      ok(error.lse <= ATTENTION_BOUND, `lse ${error.lse}`);
    });
  }

  /** The rows from `row` on of a call on one sequence, as if the later keys were not there yet. */
  function chunk(cache: Fixture, q: Float32Array, rowFloats: number, row: number, rows: number, kvLen: number, attention: AttentionOptions): AttendCall {
    return { ...callOf(cache, [rows], q.subarray(row * rowFloats, (row + rows) * rowFloats)), ...attention, seqUsedK: Int32Array.of(kvLen) };
  }

  for (const [name, attention] of [
    ['plain', {}],
    // Wider than three tiles, so that rows of one block begin in different tiles.
    ['window, softcap, sinks', { windowLeft: 101, softcap: 8, sinks: Float32Array.of(0.5, -1, 2, 0, 1, 3) }],
  ] as const) {
    test(`invariance: one prefill, chunks of 1, 7 and 64, and decode give the same bits (${name})`, async () => {
      const [kvHeads, queryHeads, headDim, tokens] = [2, 6, 40, 300];
      const numbers = random(11);
      const cache = await fixture(backend, numbers, { kvHeads, headDim, blockSize: 16, kvLens: [tokens] });
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

  test('invariance: alone, in a batch and with permuted pages give the same bits', async () => {
    const shape = { kvHeads: 2, headDim: 64, blockSize: 16 };
    const [queryHeads, kvLens, qLens] = [8, [300, 17, 2500, 64], [5, 17, 1, 2]];
    const rowFloats = queryHeads * shape.headDim;
    const q = random(13).normals(25 * rowFloats);
    const first = await fixture(backend, random(12), { ...shape, kvLens });
    const batch = await backend.attend(callOf(first, qLens, q));
    const permuted = await fixture(backend, random(12), { ...shape, kvLens, sparePages: 50 });
    ok(!first.blockTable.every((page, i) => page === permuted.blockTable[i]), 'the pages are permuted');
    // The same values, other pages: the random order of pages is drawn before the values.
    const moved = backend.createPages(permuted.layout, permuted.pages.count);
    await moved.import(poison(permuted.layout, permuted.pages.count));
    const source = first.stored;
    const pageRows = shape.blockSize * shape.kvHeads;
    for (const [i, page] of first.blockTable.entries()) {
      if (page < 0) continue;
      const rows = [page * pageRows, (page + 1) * pageRows] as const;
      const codes = rows.map((row) => row * shape.headDim);
      await moved.import({
        keyCache: source.keyCache.slice(...(codes as [number, number])), valueCache: source.valueCache.slice(...(codes as [number, number])),
        keyScale: source.keyScale!.slice(...rows), valueScale: source.valueScale!.slice(...rows),
      }, permuted.blockTable[i]);
    }
    const other = await backend.attend({ ...callOf(permuted, qLens, q), pages: moved });
    assertSameBits(other.out, batch.out, 'permuted pages');
    assertSameBits(other.lse, batch.lse, 'permuted pages, lse');
    let row = 0;
    for (const [s, rows] of qLens.entries()) {
      const maxBlocks = first.blockTable.length / kvLens.length;
      const alone = await backend.attend({
        pages: first.pages, q: q.subarray(row * rowFloats, (row + rows) * rowFloats), cuSeqlensQ: Int32Array.of(0, rows),
        blockTable: first.blockTable.slice(s * maxBlocks, (s + 1) * maxBlocks), seqUsedK: Int32Array.of(kvLens[s]),
      });
      assertSameBits(alone.out, batch.out.subarray(row * rowFloats, (row + rows) * rowFloats), `sequence ${s} alone`);
      row += rows;
    }
  });
}
