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
const configs = { 'int8 and e4m3fn, groups': formats['int8 and e4m3fn, groups'], 'e5m2, head': formats['e5m2, head'], 'all of it': structures['all of it'] };

interface Alive {
  readonly cache: KvCache;
  readonly sequences: readonly Sequence[];
}

for (const [name, options] of Object.entries(configs)) {
  test(`comes back bit for bit on the other backend: ${name}`, async () => {
    const alive = async (on: Backend): Promise<Alive> => {
      const cache = cacheOf(on, options);
      return { cache, sequences: await live(cache) };
    };
    const restored = async (on: Backend, bytes: Uint8Array): Promise<Alive> => {
      const cache = cacheOf(on, options);
      return { cache, sequences: await load(cache, bytes) };
    };
    // The same life on both: what came over goes on as what was there.
    const [cpu, gpu] = [await alive(wasm), await alive(backend)];
    const [toGpu, toCpu] = [await restored(backend, await save(cpu.cache)), await restored(wasm, await save(gpu.cache))];
    for (const when of ['restored', 'later']) {
      for (const [from, to] of [[cpu, toGpu], [gpu, toCpu]]) await assertSameContents(from.cache, from.sequences, to.cache, to.sequences, when);
      if (when === 'later') break;
      for (const [own, other] of [[cpu, toCpu], [gpu, toGpu]]) assertSameResults(await goOn(other.cache, other.sequences), await goOn(own.cache, own.sequences), 'goes on');
    }
    for (const { cache } of [cpu, gpu, toGpu, toCpu]) cache.dispose();
  }, { seconds: 120 });
}
