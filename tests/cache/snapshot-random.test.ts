/** Caches in any state: whatever came before, what is restored is what was there, and goes on as it. */
import { equal, ok } from 'uvu/assert';
import { OutOfPagesError, wasmBackend, type KvCache, type Sequence } from '../../src/index.js';
import { random, type Random } from '../random.js';
import { suite } from '../suite.js';
import { advance, assertSameContents, assertSameResults, cacheOf, load, save, structures } from './snapshots.js';

const test = suite('cache, snapshots of any state');
const backend = wasmBackend();
const SEED = 7117;
const RUNS = 40;
const PLACES = [4, 1, 7, 16];

const pick = <T>(numbers: Random, all: readonly T[]): T => all[numbers.integer(all.length)];

/** What rings no longer have, and what there is no room for, is not done. */
function unlessRefused(body: () => void): void {
  try {
    body();
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof OutOfPagesError)) throw error;
  }
}

/** A step that has written, and comes to nothing. */
function abortStep(cache: KvCache, sequence: Sequence, tokens: number): void {
  const x = new Float32Array(tokens * 16).fill(3);
  const step = cache.begin([{ sequence, tokens }]);
  for (let layer = 0; layer < cache.layers; layer++) step.append(layer, x, x);
  step.abort();
}

async function act(cache: KvCache, numbers: Random): Promise<void> {
  const sequence = pick(numbers, [...cache.live]);
  const tokens = 1 + numbers.integer(13);
  const what = numbers.integer(10);
  if (sequence === undefined || what === 0) cache.createSequence();
  else if (what === 1) sequence.free();
  else if (what === 2) sequence.fork();
  else if (what === 3) unlessRefused(() => sequence.truncate(Math.max(0, sequence.length - numbers.integer(9))));
  else if (what === 4) unlessRefused(() => abortStep(cache, sequence, tokens));
  else await advance(cache, [[sequence, tokens]], numbers.integer(1e6)).catch((error: unknown) => ok(error instanceof OutOfPagesError, String(error)));
}

for (const [name, options] of Object.entries(structures)) {
  test(`${name} (seed ${SEED})`, async () => {
    const numbers = random(SEED);
    let compared = 0;
    for (let run = 0; run < RUNS; run++) {
      const cache = cacheOf(backend, options);
      for (let i = 5 + numbers.integer(40); i > 0; i--) await act(cache, numbers);
      const sequences = [...cache.live].filter(() => numbers.integer(4) > 0);
      const blockSize = pick(numbers, PLACES);
      const other = cacheOf(backend, options, { blockSize, capacity: 800, sequences: options.sequences && 40 });
      const free = other.groups.map(({ pool }) => pool.free);
      const what = `run ${run}, pages of ${blockSize}`;
      const loaded = await load(other, await save(cache, sequences));
      await assertSameContents(cache, sequences, other, loaded, what);
      for (const each of cache.live) if (!sequences.includes(each)) each.free();
      if (options.residual === undefined || options.residualRule !== undefined || blockSize === 4) {
        for (const [i, sequence] of sequences.entries()) {
          // Of a cache that is nearly full, which has no room to go on, nothing more is asked.
          const [own, results] = [await advance(cache, [[sequence, 2]], i).catch((error: unknown) => ok(error instanceof OutOfPagesError, String(error))), await advance(other, [[loaded[i], 2]], i)];
          sequence.free();
          if (!own) continue;
          assertSameResults(results, own, what);
          compared++;
        }
      }
      for (const each of loaded) each.free();
      equal(other.groups.map(({ pool }) => pool.free), free, what);
      for (const each of [cache, other]) each.dispose();
    }
    // Else the futures would not be about much.
    ok(compared > RUNS / 4, `${compared} futures`);
  }, { seconds: 120 });
}
