/** Caches of other systems on a GPU: import and export are the host's, the buffer is the device's. */
import { throws } from 'uvu/assert';
import { pageLayout, type CacheTensors } from '../../src/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { assertSameBits } from '../bits.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { anyNhd, foreigns, foreignTensors } from '../layouts/foreign.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`layouts, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const names = ['keyCache', 'valueCache', 'keyScale', 'valueScale'] as const;

function assertSameTensors(actual: CacheTensors, expected: CacheTensors): void {
  for (const name of names) if (expected[name]) assertSameBits(actual[name]!, expected[name], name);
}

for (const foreign of foreigns) {
  for (const dtype of ['e5m2', 'int8', 'f16'] as const) {
    if (foreign.inline && dtype === 'f16') continue;
    test(`${foreign.name}: ${dtype}`, async () => {
      const page = pageLayout({ kvHeads: 3, headDim: 24, blockSize: 8, k: { dtype }, v: { dtype } });
      const numbers = random(1);
      const nhd = anyNhd(page, 3, numbers);
      const theirs = foreignTensors(foreign, page, 3, nhd, numbers);
      const pages = backend.createPages(page, 5);
      const before = anyNhd(page, 5, numbers);
      await pages.import(before);
      await pages.import(theirs, 1);
      // The rest of a last page that is not full becomes 0.
      const tokens = theirs.layout!.tokens;
      for (const name of names) nhd[name]?.fill(0, (nhd[name].length / 24) * tokens);
      assertSameTensors(await pages.export(1, 3), nhd);
      const [target, filled] = [anyNhd(page, 3, numbers), nhd].map((rows) => foreignTensors(foreign, page, 3, rows, random(100)));
      await pages.exportInto(target, 1);
      assertSameTensors(target, filled);
      for (const name of names) if (before[name]) assertSameBits((await pages.export(4))[name]!, before[name].slice((before[name].length / 5) * 4) as typeof before.keyCache, `the page after, ${name}`);
      pages.dispose();
    });
  }
}

test('what does not fit is refused', async () => {
  const page = pageLayout({ kvHeads: 3, headDim: 24, blockSize: 8 });
  const pages = backend.createPages(page, 2);
  const theirs = foreignTensors(foreigns[0], page, 3, anyNhd(page, 3, random(1)), random(1));
  for (const action of [pages.import(theirs), pages.exportInto(theirs)]) {
    const error = await action.catch((reason: unknown) => reason);
    throws(() => {
      throw error;
    }, /"layout.tokens" expected an integer from 0 to 16, got number 24/);
  }
  pages.dispose();
});
