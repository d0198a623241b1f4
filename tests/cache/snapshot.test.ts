import { equal, is } from 'uvu/assert';
import { wasmBackend, type KvCache, type KvCacheOptions } from '../../src/index.js';
import { suite } from '../suite.js';
import { advance, assertSameContents, assertSameResults, cacheOf, formats, goOn, live, load, save, structures } from './snapshots.js';

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

for (const [what, chunk] of [['smaller', 1], ['larger', 60]] as const) {
  for (const name of ['rings', 'rings with sinks', 'all of it']) {
    test(`a ring that is ${what} keeps the newest tokens that it has room for: ${name}`, async () => {
      const { residual: _, ...options } = structures[name];
      const cache = cacheOf(backend, options);
      const sequences = await live(cache);
      const bytes = await save(cache);
      for (const blockSize of [1, 4, 16]) {
        const other = cacheOf(backend, options, { blockSize, chunk });
        const loaded = await load(other, bytes);
        await assertSameContents(cache, sequences, other, loaded, 'restored', true);
        for (const [g, { kind, capacity }] of other.groups.entries()) {
          if (kind !== 'ring') continue;
          const [from, to] = [sequences, loaded].map((all) => all[0].state.held[g]);
          equal(to.floor, what === 'smaller' ? to.end - capacity : from.floor);
        }
        // One by one, as the smaller ring has it.
        const steps = (all: typeof loaded): [typeof loaded[number], number][] => all.map((each) => [each, 1]);
        const copies = sequences.map((each) => each.fork());
        for (let i = 0; i < 12; i++) assertSameResults(await advance(other, steps(loaded), i), await advance(cache, steps(copies), i), `goes on, step ${i}`);
        for (const each of copies) each.free();
        other.dispose();
      }
      cache.dispose();
    });
  }
}
