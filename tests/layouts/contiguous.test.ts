/** A contiguous cache is one of pages that hold a sequence each: the bits of the paged form. */
import { equal } from 'uvu/assert';
import { milaLayout, pageLayout, wasmBackend, type Format } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { builds } from '../builds.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('layouts: contiguous');
const [kvHeads, queryHeads, headDim, capacity] = [2, 4, 24, 300];
const kvLens = [300, 7, 0, 145];
const qLens = [3, 1, 0, 20];
const cuSeqlensQ = Int32Array.of(0, 3, 4, 4, 24);
const seqUsedK = Int32Array.from(kvLens);

for (const simd of builds) {
  const backend = wasmBackend({ simd });
  for (const dtype of ['e4m3fn', 'e5m2', 'int8', 'f16', 'f32'] as const satisfies readonly Format[]) {
    test(`${simd}, ${dtype}: append and attend give the bits of pages of 16 and of 5 tokens`, () => {
      const numbers = random(1);
      const keys = kvLens.map((tokens) => numbers.normals(tokens * kvHeads * headDim));
      const values = kvLens.map((tokens) => numbers.normals(tokens * kvHeads * headDim));
      const q = numbers.normals(24 * queryHeads * headDim);
      const results = [capacity, 16, 5].map((blockSize) => {
        const layout = pageLayout({ kvHeads, headDim, blockSize, k: { dtype }, v: { dtype } });
        const maxBlocks = Math.ceil(capacity / blockSize);
        const pages = backend.createPages(layout, kvLens.length * maxBlocks);
        for (const [s, tokens] of kvLens.entries()) {
          // Sequence s has the pages from s · maxBlocks on: with one each, slot s · capacity + position.
          backend.append({ pages, key: keys[s], value: values[s], slotMapping: Int32Array.from({ length: tokens }, (_, j) => s * maxBlocks * blockSize + j) });
        }
        const blockTable = blockSize === capacity ? undefined : Int32Array.from({ length: kvLens.length * maxBlocks }, (_, page) => page);
        return backend.attend({ pages, q, blockTable, cuSeqlensQ, seqUsedK });
      });
      equal(qLens.length, kvLens.length);
      for (const { out, lse } of results.slice(1)) {
        assertSameBits(results[0].out, out, 'out');
        assertSameBits(results[0].lse, lse, 'lse');
      }
    });
  }

  test(`${simd}: a sequence of Mila attended to in one page and in many`, () => {
    const numbers = random(2);
    const [tokens, maxSeqLen] = [145, 160];
    const codes = (): Uint8Array => Uint8Array.from({ length: kvHeads * maxSeqLen * headDim }, () => numbers.integer(0x7f) | (numbers.integer(2) << 7));
    const scales = (): Float32Array => Float32Array.from({ length: kvHeads * maxSeqLen }, () => numbers.uniform() / 100 + 1e-4);
    const theirs = { keyCache: codes(), valueCache: codes(), keyScale: scales(), valueScale: scales() };
    const q = numbers.normals(queryHeads * headDim);
    const [one, many] = [maxSeqLen, 16].map((blockSize) => {
      const layout = pageLayout({ kvHeads, headDim, blockSize });
      const pages = backend.createPages(layout, maxSeqLen / blockSize);
      pages.import({ ...theirs, layout: milaLayout(layout, { maxSeqLen, tokens }) });
      const blockTable = blockSize === maxSeqLen ? undefined : Int32Array.from({ length: 10 }, (_, page) => page);
      return backend.attend({ pages, q, blockTable, cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(tokens) });
    });
    assertSameBits(one.out, many.out, 'out');
    assertSameBits(one.lse, many.lse, 'lse');
  });
}
