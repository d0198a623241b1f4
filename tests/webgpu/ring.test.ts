/** Rings on a GPU: within the bound of float64, and the bits of a cache that keeps all tokens. */
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { assertSameBits } from '../bits.js';
import { assertRing, unbounded } from '../cache/rings.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { suite } from '../suite.js';

const test = suite(`cache, rings, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

for (const [name, place] of [['pages of 4', { blockSize: 4 }], ['pages of 16', { blockSize: 16 }], ['contiguous', { layout: 'contiguous' }]] as const) {
  test(`answers as a cache of all tokens does: ${name}`, async () => {
    const [ring, all] = [await assertRing(backend, place), await unbounded(backend)];
    for (const [i, { out, lse }] of ring.entries()) {
      assertSameBits(out, all[i].out, `out ${i}`);
      assertSameBits(lse, all[i].lse, `lse ${i}`);
    }
  });
}

for (const sinkTokens of [4, 20]) {
  test(`the first ${sinkTokens} tokens stay`, async () => {
    await assertRing(backend, { sinkTokens, blockSize: 16 });
  });
}
