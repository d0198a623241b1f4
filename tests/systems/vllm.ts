/** vLLM's cache tests: reshape-and-cache with given scales, scales per token and head, softcap. */
import { equal } from 'uvu/assert';
import { encode, pageLayout, type Backend, type NhdTensors } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { poison } from '../fixture.js';
import { random, type Random } from '../random.js';
import type { Suite } from '../suite.js';
import { World } from './world.js';

/** So many different slots. */
function slotsOf(numbers: Random, tokens: number, slots: number): Int32Array {
  const all = Array.from({ length: slots }, (_, i) => i);
  return Int32Array.from({ length: tokens }, () => all.splice(numbers.integer(all.length), 1)[0]);
}

const largestOf = (values: Float32Array): number => values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);

/** Codes of rows and, where rows have scales of their own, those, in their slots; elsewhere what was there. */
function scattered<T extends NhdTensors['keyCache']>(before: T, rows: ArrayLike<number>, slots: Int32Array, floats: number): T {
  const after = before.slice() as T;
  for (const [token, slot] of slots.entries()) {
    if (slot < 0) continue;
    for (let i = 0; i < floats; i++) after[slot * floats + i] = rows[token * floats + i];
  }
  return after;
}

/** Each row's scale and codes by vLLM's rule for a scale per token and head. */
function tokenHead(rows: Float32Array, headDim: number, dtype: 'e4m3fn' | 'int8'): { codes: Uint8Array | Int8Array; scales: Float32Array } {
  const scales = new Float32Array(rows.length / headDim);
  const quotients = new Float32Array(rows.length);
  for (let row = 0; row < scales.length; row++) {
    const amax = largestOf(rows.subarray(row * headDim, (row + 1) * headDim));
    scales[row] = Math.max(Math.fround(amax / (dtype === 'int8' ? 127 : 448)), Math.fround(1e-6));
    const reciprocal = Math.fround(1 / scales[row]);
    for (let i = row * headDim; i < (row + 1) * headDim; i++) quotients[i] = rows[i] * reciprocal;
  }
  const halfToEven = (x: number): number => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));
  const codes = dtype === 'int8' ? Int8Array.from(quotients, (x) => Math.min(127, Math.max(-128, halfToEven(x)))) : encode(quotients, dtype);
  return { codes, scales };
}

export function testVllm(test: Suite, open: () => Backend): void {
  for (const headDim of [64, 80, 120, 256]) {
    test(`vllm reshape_and_cache_flash: 42 tokens × 8 heads × ${headDim}, blocks of 8, 16 and 32`, async () => {
      for (const blockSize of [8, 16, 32]) {
        const numbers = random(headDim + blockSize);
        const blocks = 128 / blockSize;
        const side = { dtype: 'e4m3fn', granularity: 'tensor' } as const;
        const layout = pageLayout({ kvHeads: 8, headDim, blockSize, k: side, v: side });
        const pages = open().createPages(layout, blocks);
        const before = poison(layout, blocks);
        await pages.import(before);
        const [key, value] = [numbers.normals(42 * 8 * headDim), numbers.normals(42 * 8 * headDim)];
        const [kScale, vScale] = [key, value].map((x) => Math.fround(largestOf(x) / 64));
        const slotMapping = slotsOf(numbers, 42, 128);
        await open().append({ pages, key, value, slotMapping, kScale, vScale });
        const after = await pages.export();
        for (const [was, now, x, scale] of [[before.keyCache, after.keyCache, key, kScale], [before.valueCache, after.valueCache, value, vScale]] as const) {
          assertSameBits(now, scattered(was, encode(x.map((each) => each / scale), 'e4m3fn'), slotMapping, 8 * headDim), `blocks of ${blockSize}`);
        }
        pages.dispose();
      }
    });
  }

  for (const dtype of ['e4m3fn', 'int8'] as const) {
    test(`vllm per token and head, ${dtype}: 1, 7 and 42 tokens; 1, 4 and 8 heads; headDim 64 and 128`, async () => {
      for (const tokens of [1, 7, 42]) {
        for (const kvHeads of [1, 4, 8]) {
          for (const headDim of [64, 128]) {
            const numbers = random(tokens * kvHeads + headDim);
            const side = { dtype, granularity: 'token-head' } as const;
            const layout = pageLayout({ kvHeads, headDim, blockSize: 16, k: side, v: side });
            const pages = open().createPages(layout, 4);
            const before = poison(layout, 4);
            await pages.import(before);
            const x = numbers.normals(tokens * kvHeads * headDim);
            const slotMapping = slotsOf(numbers, tokens, 64);
            await open().append({ pages, key: x, value: x, slotMapping, recipe: 'vllm-token-head' });
            const after = await pages.export();
            const expected = tokenHead(x, headDim, dtype);
            const what = `${tokens} tokens, ${kvHeads} heads, headDim ${headDim}`;
            for (const name of ['key', 'value'] as const) {
              assertSameBits(after[`${name}Cache`], scattered(before[`${name}Cache`], expected.codes, slotMapping, kvHeads * headDim), what);
              assertSameBits(after[`${name}Scale`]!, scattered(before[`${name}Scale`]!, expected.scales, slotMapping, kvHeads), `${what}, scales`);
            }
            pages.dispose();
          }
        }
      }
    });

    test(`vllm per token and head, ${dtype}: slots 0, −1, 1, −1 leave every other byte untouched`, async () => {
      const side = { dtype, granularity: 'token-head' } as const;
      const layout = pageLayout({ kvHeads: 4, headDim: 64, blockSize: 16, k: side, v: side });
      const pages = open().createPages(layout, 2);
      const before = poison(layout, 2);
      await pages.import(before);
      const x = random(5).normals(4 * 4 * 64);
      const slotMapping = Int32Array.of(0, -1, 1, -1);
      equal(await open().append({ pages, key: x, value: x, slotMapping, recipe: 'vllm-token-head' }), { written: 2, skipped: 2, ...(dtype === 'int8' ? { nan: 0 } : {}) });
      const after = await pages.export();
      const expected = tokenHead(x, 64, dtype);
      for (const name of ['key', 'value'] as const) {
        assertSameBits(after[`${name}Cache`], scattered(before[`${name}Cache`], expected.codes, slotMapping, 4 * 64));
        assertSameBits(after[`${name}Scale`]!, scattered(before[`${name}Scale`]!, expected.scales, slotMapping, 4));
      }
      pages.dispose();
    });
  }

  test('vllm int8: rounding of −127, −2.6, −2.4, −1.6, −1.4, −0.6, −0.4 and 127', async () => {
    const side = { dtype: 'int8', granularity: 'token-head' } as const;
    const pages = open().createPages(pageLayout({ kvHeads: 1, headDim: 64, blockSize: 16, k: side, v: side }), 1);
    const x = new Float32Array(64);
    x.set([-127, -2.6, -2.4, -1.6, -1.4, -0.6, -0.4, 127]);
    await open().append({ pages, key: x, value: x, slotMapping: Int32Array.of(0), recipe: 'vllm-token-head' });
    const { keyCache, keyScale } = await pages.export();
    equal([...keyCache.subarray(0, 8)], [-127, -3, -2, -2, -1, -1, 0, 127]);
    equal(keyScale![0], 1);
    pages.dispose();
  });

  test('vllm softcap: none, 10 and 50', async () => {
    const numbers = random(9);
    const world = new World(numbers, { kvHeads: 2, queryHeads: 8, headDim: 128, lengths: [[1, 1328], [5, 18], [129, 463]], dtype: 'e4m3fn', scaleDivisor: 64 });
    const placed = await world.place(open(), numbers, 16);
    for (const softcap of [0, 10, 50]) {
      const attention = { softcap, softmaxScale: 0.5 };
      world.check(await open().attend({ ...world.call(placed), ...attention }), world.answer(attention), `softcap ${softcap}`);
    }
    placed.pages.dispose();
  });
}
