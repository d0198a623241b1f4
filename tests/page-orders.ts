/** Pages of order NHD hold the same as those of HND, and attention gives the same bits of them: on every backend. */
import { is, throws } from 'uvu/assert';
import { pageLayout, type Backend, type GivenScale, type NhdTensors, type PageLayout, type PageShape, type SideOptions } from '../src/index.js';
import { assertSameBits } from './bits.js';
import { poison } from './fixture.js';
import { random } from './random.js';
import type { Suite } from './suite.js';

const group = { dtype: 'e4m3fn', granularity: 'group', groupSize: 8 } as const;
const tried: readonly { readonly k: SideOptions; readonly v: SideOptions; readonly kScale?: GivenScale; readonly vScale?: GivenScale }[] = [
  { k: { dtype: 'f32' }, v: { dtype: 'f16' } },
  { k: { dtype: 'e4m3fn' }, v: { dtype: 'e5m2' } },
  // Groups that end amid 16 bytes.
  { k: group, v: group },
  { k: { dtype: 'int8', granularity: 'head' }, v: { dtype: 'e4m3fn', granularity: 'tensor' }, kScale: 0.02, vScale: 0.03 },
];

function assertSameTensors(actual: NhdTensors, expected: NhdTensors, what: string): void {
  for (const [name, array] of Object.entries(expected)) if (array) assertSameBits(actual[name as keyof NhdTensors]!, array, `${what}, ${name}`);
}

/** @param open gives the backend once the tests run */
export function testOrders(test: Suite, open: () => Backend): void {
  for (const { k, v, kScale, vScale } of tried) {
    test(`order NHD: what goes in comes out, and attention's bits, are those of HND: ${k.dtype} ${k.granularity ?? ''}/${v.dtype}`, async () => {
      const backend = open();
      for (const [kvHeads, blockSize] of [[3, 16], [1, 16], [2, 5], [2, 1]]) {
        const [headDim, tokens] = [24, 61];
        const shape: PageShape = { kvHeads, headDim, blockSize, k, v };
        const layouts = [pageLayout(shape), pageLayout({ ...shape, order: 'NHD' })];
        const count = Math.ceil(70 / blockSize) + 1;
        const numbers = random(blockSize);
        const [key, value] = [numbers.normals(tokens * kvHeads * headDim), numbers.normals(tokens * kvHeads * headDim)];
        // A NaN in one head's value, which the others' rows do not see.
        value[40 * kvHeads * headDim + 3] = NaN;
        const slotMapping = Int32Array.from({ length: tokens }, (_, i) => i);
        const q = [1, 30].map((rows) => numbers.normals(rows * 2 * kvHeads * headDim));
        const given = async (layout: PageLayout) => {
          const pages = backend.createPages(layout, count);
          is(pages.layout.order, layout.order);
          await pages.import(poison(layout, count));
          await backend.append({ pages, key, value, slotMapping, kScale, vScale });
          pages.copyPages([0], [count - 1]);
          const blockTable = Int32Array.from({ length: count - 1 }, (_, i) => (i === 0 ? count - 1 : i));
          const results = [];
          for (const query of q) {
            const rows = query.length / (2 * kvHeads * headDim);
            results.push(await backend.attend({ pages, q: query, blockTable, cuSeqlensQ: Int32Array.of(0, rows), seqUsedK: Int32Array.of(tokens), kScale, vScale }));
          }
          const stored = await pages.export();
          // The tensors of a system that lies head by head, and back in.
          const strides = { offset: 0, block: kvHeads * blockSize * headDim, token: headDim, head: blockSize * headDim };
          const groups = layout.k.groupSize === 0 ? 0 : headDim / layout.k.groupSize;
          const scales = groups === 0 ? undefined : { offset: 0, block: kvHeads * blockSize * groups, token: groups, head: blockSize * groups, group: 1 };
          const foreign = { ...poison(layout, count), layout: { tokens: count * blockSize, k: { codes: strides, scales }, v: { codes: strides, scales } } };
          await pages.exportInto(foreign);
          await pages.import(poison(layout, count));
          await pages.import(foreign);
          const again = await pages.export();
          pages.dispose();
          assertSameTensors(again, stored, 'out and in again');
          return { stored, foreign, results };
        };
        const [expected, actual] = [await given(layouts[0]), await given(layouts[1])];
        const what = `${kvHeads} heads, pages of ${blockSize}`;
        assertSameTensors(actual.stored, expected.stored, what);
        assertSameBits(actual.foreign.keyCache, expected.foreign.keyCache, what);
        assertSameBits(actual.foreign.valueCache, expected.foreign.valueCache, what);
        for (const [i, { out, lse }] of expected.results.entries()) {
          assertSameBits(actual.results[i].out, out, `${what}, out`);
          assertSameBits(actual.results[i].lse, lse, `${what}, lse`);
        }
      }
    });
  }

  test('order NHD: rows of f16 and f32 have no padding, and an order that is none is refused', () => {
    const layout = pageLayout({ kvHeads: 3, headDim: 40, blockSize: 16, k: { dtype: 'f32' }, v: { dtype: 'f16' }, order: 'NHD' });
    const { k, v } = open().createPages(layout, 1).layout;
    is([k.codes, k.tokenStride, k.headStride, k.dimStride].join(), [0, 3 * 160, 160, 4].join());
    is([v.codes, v.tokenStride, v.headStride, v.dimStride].join(), [16 * 3 * 160, 3 * 80, 80, 2].join());
    is(layout.bytes, 16 * 3 * (160 + 80));
    is(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 8 }).order, 'HND');
    throws(() => pageLayout({ kvHeads: 1, headDim: 8, blockSize: 8, order: 'NDH' as 'NHD' }), /"order" expected HND or NHD, got "NDH"/);
  });
}
