import { equal, is } from 'uvu/assert';
import { wasmBackend, type KvCache, type KvCacheOptions } from '../../src/index.js';
import { suite } from '../suite.js';
import { assertSameContents, assertSameResults, cacheOf, formats, goOn, live, load, save, structures } from './snapshots.js';

const test = suite('cache, snapshots');
const backend = wasmBackend();

const freePages = (cache: KvCache): number[] => cache.groups.map(({ pool }) => pool.free);

/** A life, its snapshot in another cache, and the same future for both. */
async function assertRoundTrip(options: Partial<KvCacheOptions>, place: Partial<KvCacheOptions>, future: 'same' | 'own' = 'same'): Promise<void> {
  const cache = cacheOf(backend, options);
  const sequences = await live(cache);
  const bytes = await save(cache);
  const other = cacheOf(backend, options, place);
  const loaded = await load(other, bytes);
  await assertSameContents(cache, sequences, other, loaded, 'restored');
  if (Object.keys(place).length === 0) {
    equal(freePages(other), freePages(cache));
    is(Buffer.compare(await save(other), bytes), 0, 'saved again');
  }
  const results = await goOn(other, loaded);
  if (future === 'same') {
    assertSameResults(results, await goOn(cache, sequences), 'goes on');
    await assertSameContents(cache, sequences, other, loaded, 'later', true);
  }
  for (const each of loaded) each.free();
  equal(freePages(other), other.groups.map(({ pageCount }) => pageCount));
  cache.dispose();
  other.dispose();
}

for (const [name, options] of Object.entries(formats)) test(`comes back bit for bit: ${name}`, () => assertRoundTrip(options, {}));

const places: Partial<KvCacheOptions>[] = [{}, ...[1, 16, 23].map((blockSize) => ({ blockSize })), { layout: 'contiguous', blockSize: undefined, sequences: 8 }];
for (const [name, options] of Object.entries(structures)) {
  for (const place of places) {
    const sinks = options.sinkTokens !== undefined || Array.isArray(options.layers);
    if (sinks && place.layout) continue;
    // When a page leaves the residual depends on how large pages are.
    const future = options.residual !== undefined && options.residualRule === undefined && Object.keys(place).length > 0 ? 'own' : 'same';
    test(`comes back bit for bit: ${name}, into ${place.layout ?? `pages of ${place.blockSize ?? 4}`}`, () => assertRoundTrip(options, place, future));
  }
}
