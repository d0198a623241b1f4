/** The tests of ferrum's Rust `KvCacheQuant`: int8 with the recipe ferrum-int8. */
import { ok } from 'uvu/assert';
import { pageLayout, type Backend, type NhdTensors, type SideOptions } from '../../src/index.js';
import { random } from '../random.js';
import type { Suite } from '../suite.js';

const int8 = { dtype: 'int8' } as const;
const f32 = { dtype: 'f32' } as const;

/** A cache of one sequence in pages of 16. */
async function filled(backend: Backend, side: SideOptions, key: Float32Array, value: Float32Array, kvHeads: number, tokens: number) {
  const pages = backend.createPages(pageLayout({ kvHeads, headDim: key.length / tokens / kvHeads, blockSize: 16, k: side, v: side }), Math.ceil(tokens / 16));
  await backend.append({ pages, key, value, slotMapping: Int32Array.from({ length: tokens }, (_, j) => j), recipe: side === int8 ? 'ferrum-int8' : 'amax' });
  return pages;
}

function cosine(a: Float32Array, b: Float32Array): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return dot / Math.sqrt(aa * bb);
}

export function testFerrum(test: Suite, open: () => Backend): void {
  test('ferrum round trip: 16 tokens × 4 heads × 128 of U(−1, 1) · 0.1 within 0.002', async () => {
    const numbers = random(1);
    const values = Float32Array.from({ length: 16 * 4 * 128 }, () => (numbers.uniform() * 2 - 1) * 0.1);
    const pages = await filled(open(), int8, values, values, 4, 16);
    const { keyCache, keyScale, valueCache, valueScale }: NhdTensors = await pages.export();
    for (const [codes, scales] of [[keyCache, keyScale!], [valueCache, valueScale!]] as const) {
      const worst = values.reduce((most, x, i) => Math.max(most, Math.abs(x - codes[i] * scales[Math.floor(i / 128)])), 0);
      ok(worst < 0.002, `worst ${worst}`);
    }
    pages.dispose();
  });

  test('ferrum decode: 8/2 heads, blocks of 16, kv 96 and 64, cosine with f32 above 0.9999', async () => {
    for (const kv of [96, 64]) {
      const numbers = random(kv);
      const [key, value, q] = [numbers.normals(kv * 2 * 128), numbers.normals(kv * 2 * 128), numbers.normals(8 * 128)];
      const results = [];
      for (const side of [int8, f32]) {
        const pages = await filled(open(), side, key, value, 2, kv);
        const call = { pages, q, blockTable: Int32Array.from({ length: kv / 16 }, (_, i) => i), cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(kv) };
        results.push((await open().attend(call)).out);
        pages.dispose();
      }
      const similar = cosine(results[0], results[1]);
      ok(similar > 0.9999, `kv ${kv}: ${similar}`);
    }
  });
}
