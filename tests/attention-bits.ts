/** What attention must give on every backend: the golden cases, and bits that do not depend on batch mates and pages. */
import { is, ok } from 'uvu/assert';
import type { Backend } from '../src/index.js';
import { readAttendCase, runAttendCase } from '../src/files/attend-case.js';
import { ATTENTION_BOUND, attentionError } from '../src/files/compare.js';
import { assertSameBits } from './bits.js';
import { callOf, fixture, poison } from './fixture.js';
import { golden, goldenFiles } from './golden.js';
import { random } from './random.js';
import type { Suite } from './suite.js';

/**
 * @param open gives the backend once the tests run
 * @param share every so many cases are tried, where another run takes them all
 */
export function testGolden(test: Suite, open: () => Backend, share = 1): void {
  const cases = goldenFiles('attend');
  test('98 golden cases are here', () => {
    is(cases.length, 98);
  });
  for (const path of cases.filter((_, i) => i % share === 0)) {
    test(path, async () => {
      const attendCase = readAttendCase(golden(path), path);
      const error = attentionError(await runAttendCase(open(), attendCase), attendCase.expected, attendCase.layout.headDim);
      ok(error.out <= ATTENTION_BOUND, `out ${error.out}`);
      ok(error.lse <= ATTENTION_BOUND, `lse ${error.lse}`);
    });
  }
}

/** @param open gives the backend once the tests run */
export function testPlacement(test: Suite, open: () => Backend): void {
  test('invariance: alone, in a batch and with permuted pages give the same bits', async () => {
    const backend = open();
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
