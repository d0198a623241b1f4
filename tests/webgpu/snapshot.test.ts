/** Snapshots between backends: taken on one, restored on the other, with equal bytes and an equal future. */
import { KvCache, wasmBackend, type Backend, type Sequence } from '../../src/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { assertSameContents, assertSameResults, cacheOf, formats, goOn, live, load, save, structures } from '../cache/snapshots.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { suite } from '../suite.js';

const test = suite(`cache, snapshots, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const wasm = wasmBackend();
const chosen = ['int8 and e4m3fn, groups', 'e5m2, head', 'one layer unquantized', 'int8, channel'];
const configs = { ...Object.fromEntries(chosen.map((name) => [name, formats[name]])), ...structures };

for (const [name, options] of Object.entries(configs)) {
  for (const to of ['webgpu', 'wasm'] as const) {
    test(`comes back bit for bit on ${to}: ${name}`, async () => {
      const [there, here]: Backend[] = to === 'webgpu' ? [wasm, backend] : [backend, wasm];
      const alive = async (on: Backend): Promise<[KvCache, readonly Sequence[]]> => {
        const cache = cacheOf(on, options);
        return [cache, await live(cache)];
      };
      // The same life on both; then the one that came over, beside the one that was there.
      const [[from, sequences], [own, owns]] = [await alive(there), await alive(here)];
      const cache = cacheOf(here, options);
      const loaded = await load(cache, await save(from));
      await assertSameContents(from, sequences, cache, loaded, 'restored');
      assertSameResults(await goOn(cache, loaded), await goOn(own, owns), 'goes on');
      await goOn(from, sequences);
      await assertSameContents(from, sequences, cache, loaded, 'later');
      for (const each of [from, own, cache]) each.dispose();
    }, { seconds: 120 });
  }
}
