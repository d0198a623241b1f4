/** Prefixes on a GPU: pages that make room are read before they are written over, and come back as they were. */
import { equal, is } from 'uvu/assert';
import { KvCache, wasmBackend, type Backend, type NhdTensors, type PageStore, type Sequence } from '../../src/index.js';
import { usage } from '../../src/webgpu/constants.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { computed, idsFrom, memoryStore, prefixCache, prompted, warningsOf } from '../cache/prompts.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { suite } from '../suite.js';

const test = suite(`prefixes, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const ids = idsFrom(0, 13);
const cacheOn = (own: Backend, store: PageStore): KvCache => prefixCache(own, 6, { prefix: { model: 'stand-in', store } });

/** What a sequence's pages hold, in all layers. */
async function held(cache: KvCache, { blocks }: Sequence): Promise<NhdTensors[]> {
  return Promise.all(blocks.flatMap((page) => [0, 1].map(async (layer) => cache.pages(layer).export(page, 1))));
}

test('pages go to the store and come back with the same bytes, to the CPU too', async () => {
  const warnings = await warningsOf(async () => {
    const store = memoryStore();
    const cache = cacheOn(backend, store);
    const sequence = prompted(cache, ids.slice(0, 12));
    const before = await held(cache, sequence);
    sequence.free();
    prompted(cache, idsFrom(100, 24)).free();
    await cache.settled();
    equal([cache.prefixCounters.evictions, cache.prefixCounters.stored], [3, 3]);
    const cpu = cacheOn(wasmBackend(), store);
    for (const each of [cache, cpu]) {
      const match = await each.matchPrefix(ids);
      is(match.length, 12);
      equal(await held(each, match.sequence), before);
    }
    cache.dispose();
    cpu.dispose();
  });
  equal(warnings, []);
});

test('also where the step that takes their room is recorded', async () => {
  const store = memoryStore();
  const cache = cacheOn(backend, store);
  const sequence = prompted(cache, ids.slice(0, 12));
  const before = await held(cache, sequence);
  sequence.free();
  const { device } = backend;
  const { key } = computed(idsFrom(100, 24));
  const buffer = device.createBuffer({ size: key.byteLength, usage: usage.storage | usage.copyDst });
  device.queue.writeBuffer(buffer, 0, key);
  const other = cache.createSequence();
  const step = cache.begin([{ sequence: other, tokens: idsFrom(100, 24) }]);
  const encoder = device.createCommandEncoder();
  for (let layer = 0; layer < 2; layer++) step.recordAppend(encoder, layer, buffer, buffer);
  device.queue.submit([encoder.finish()]);
  step.commit();
  other.free();
  await cache.settled();
  const match = await cache.matchPrefix(ids);
  equal([match.length, cache.prefixCounters.fetched], [12, 3]);
  equal(await held(cache, match.sequence), before);
  buffer.destroy();
  cache.dispose();
});
