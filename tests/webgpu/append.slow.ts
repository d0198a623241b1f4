/** Ten million values of each dtype, of any magnitude: the GPU's bytes are the CPU's. */
import { pageLayout, recipes, wasmBackend, type NhdTensors, type RecipeName } from '../../src/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { assertSameBits } from '../bits.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { random } from '../random.js';
import { mixedRows } from '../rows.js';
import { suite } from '../suite.js';

const test = suite(`append, ten million values, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const [kvHeads, headDim, blockSize, tokens] = [8, 128, 16, 2000];
const layout = pageLayout({ kvHeads, headDim, blockSize, k: { dtype: 'e4m3fn' }, v: { dtype: 'e5m2' } });
const slotMapping = Int32Array.from({ length: tokens }, (_, i) => i);

for (const [seed, dtype] of (['f32', 'f16', 'bf16'] as const).entries()) {
  test(`from ${dtype}`, async () => {
    const numbers = random(seed);
    const cpu = wasmBackend();
    const pages = [cpu, backend].map((each) => each.createPages(layout, tokens / blockSize));
    for (let part = 0; part < 5; part++) {
      const x = mixedRows(numbers, dtype, tokens * kvHeads, headDim);
      const recipe = Object.keys(recipes).filter((name) => name !== 'ferrum-int8')[part] as RecipeName;
      cpu.append({ pages: pages[0], key: x, value: x, dtype, slotMapping, recipe });
      await backend.append({ pages: pages[1], key: x, value: x, dtype, slotMapping, recipe });
      const [expected, actual] = await Promise.all(pages.map((each) => each.export()));
      for (const [name, array] of Object.entries(expected)) assertSameBits(actual[name as keyof NhdTensors]!, array, `${recipe}, ${name}`);
    }
    for (const each of pages) each.dispose();
    cpu.dispose();
  }, { seconds: 600 });
}
