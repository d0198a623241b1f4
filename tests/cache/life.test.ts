/**
 * A hundred thousand random operations, after each of which the cache is compared with a plain model: lengths, the bits of all
 * tokens in all layers, free pages, who shares what. A failure names the seed, the run and the operation.
 */
import { ok } from 'uvu/assert';
import { random, type Random } from '../random.js';
import { suite } from '../suite.js';
import { operate } from './life/operations.js';
import type { WorldShape } from './life/rules.js';
import { MemoryStore } from './life/store.js';
import { place, World } from './life/world.js';

const test = suite('cache, a long life');
const OPERATIONS = 25_000;
const RUNS = 50;
const SEED = 7301;

interface Kind {
  readonly name: string;
  readonly prefix?: boolean;
  shape(random: Random, run: number): WorldShape;
  /** What must have happened, apart from what happens everywhere. */
  readonly seen: readonly string[];
}

const one = <T>(random: Random, list: readonly T[]): T => list[random.integer(list.length)];
const blocks = (random: Random): Pick<WorldShape, 'blockSize' | 'pages'> => ({ blockSize: 2 + random.integer(3), pages: 10 + random.integer(31) });

const kinds: readonly Kind[] = [
  {
    name: 'prefixes, with a store and without',
    prefix: true,
    shape: (random) => ({ layers: one(random, [[{}], [{}, {}]]), dtype: one(random, ['e4m3fn', 'f32']), ...blocks(random), pages: 10 + random.integer(15), chunk: Infinity }),
    seen: ['match', 'fetch', 'evict', 'evict for a match', 'store', 'out of pages, all'],
  },
  {
    name: 'all tokens, and rings of two windows',
    shape: (random) => ({ layers: [{}, { slidingWindow: 1 + random.integer(4) }, { slidingWindow: 5 }], dtype: 'e4m3fn', ...blocks(random), chunk: 2 + random.integer(5), context: one(random, [undefined, 30]), sequences: 3 + random.integer(3) }),
    seen: ['truncate refused', 'out of pages, all', 'out of pages, ring'],
  },
  {
    name: 'residuals, both rules',
    shape: (random, run) => ({
      layers: one(random, [[{}], [{}, {}]]), dtype: one(random, ['e4m3fn', 'int8']), ...blocks(random), chunk: 3 + random.integer(5), sequences: 2 + random.integer(4),
      residual: 1 + random.integer(6), residualRule: run % 2 === 0 ? 'page' : 'huggingface', residualDtype: one(random, ['f32', 'f16']),
    }),
    seen: ['out of pages, all', 'out of pages, residual'],
  },
  {
    name: 'rings with sinks, residuals, and layers that stay unquantized',
    shape: (random, run) => ({
      layers: [{ slidingWindow: 3, sinkTokens: 1 + random.integer(4) }, { slidingWindow: 5, skipped: true, sinkTokens: random.integer(3) }, { skipped: true }, { slidingWindow: 5 }],
      dtype: 'e5m2', ...blocks(random), chunk: 2 + random.integer(5), sequences: 2 + random.integer(4),
      residual: 1 + random.integer(6), residualRule: run % 2 === 0 ? 'page' : 'huggingface',
    }),
    seen: ['truncate refused', 'out of pages, all', 'out of pages, ring'],
  },
];

const everywhere = ['create', 'begin', 'append', 'commit', 'commit refused', 'abort', 'abort after an append', 'several steps', 'fork', 'copy on write', 'truncate', 'free', 'checkpoint', 'restore', 'save', 'save given up', 'load', 'load refused', 'refused in a step', 'refused at work'];

for (const [number, { name, prefix = false, shape, seen: own }] of kinds.entries()) {
  test(`random operations: ${name}`, async () => {
    const places = [place(), place()];
    const seen = new Map<string, number>();
    for (let run = 0; run < RUNS; run++) {
      const seed = SEED + 1000 * number + run;
      const numbers = random(seed);
      const world = new World({ shape: shape(numbers, run), random: numbers, places, prefix, store: prefix && run % 2 === 0 ? new MemoryStore() : undefined }, seen);
      for (let operation = 0; operation < OPERATIONS / RUNS; operation++) {
        await operate(world).catch((error: Error) => {
          throw new Error(`seed ${seed}, operation ${operation}, ${error.message}; the world: ${JSON.stringify(world.shape)}`, { cause: error });
        });
      }
      world.dispose();
    }
    // Else the operations would not be about much.
    for (const what of [...everywhere, ...own]) ok((seen.get(what) ?? 0) > OPERATIONS / 2000, `${what}: ${seen.get(what) ?? 0} times`);
  }, { seconds: 300 });
}
