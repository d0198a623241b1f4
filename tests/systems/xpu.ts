/** The grid of vLLM's XPU kernels (varlen, decode, large groups, speculative rows, LSE, sink with window), on one backend. */
import { ok } from 'uvu/assert';
import { pageLayout, type AttentionOptions, type Backend } from '../../src/index.js';
import { random } from '../random.js';
import type { Suite } from '../suite.js';
import { formatOf, narrow, World, type CacheDtype, type Placed } from './world.js';

const dtypes: readonly CacheDtype[] = ['e4m3fn', 'e5m2', 'none'];
const windows = [[-1, 127], [127, -1], [64, 64], [-1, -1]] as const;
const placements = [16, 64, 512, 'contiguous'] as const;
const scaleDivisor = 200;
const ways = placements.flatMap((placement) => [true, false].flatMap((sink) => (['f16', 'bf16'] as const).map((qDtype) => ({ placement, sink, qDtype }))));

interface GridOptions {
  /** Every combination; else, at each window and causality, one of the 16 of placement, sink and q's dtype, which take turns. */
  readonly whole: boolean;
}

function testVarlen(test: Suite, open: () => Backend, { whole }: GridOptions): void {
  let turn = 0;
  for (const headDim of [64, 128, 256]) {
    for (const dtype of dtypes) {
      test(`xpu varlen: headDim ${headDim}, ${dtype}`, async () => {
        const numbers = random(headDim + dtypes.indexOf(dtype));
        const world = new World(numbers, { kvHeads: 2, queryHeads: 8, headDim, lengths: [[1, 1328], [5, 18], [129, 463]], dtype, scaleDivisor });
        const sinks = numbers.normals(8, 3);
        const placed = new Map<number | string, Placed>();
        for (const [windowLeft, windowRight] of windows) {
          for (const causal of [true, false]) {
            const attention = { causal, windowLeft, windowRight };
            const plain = world.answer(attention);
            const withSinks = world.withSinks(plain, sinks);
            // 5 and 16 have no factor in common: all are reached.
            for (const { placement, sink, qDtype } of whole ? ways : [ways[(5 * turn++) % ways.length]]) {
              const place = placed.get(placement) ?? (await world.place(open(), numbers, placement));
              placed.set(placement, place);
              const result = await open().attend({ ...world.call(place, qDtype), ...attention, sinks: sink ? sinks : undefined });
              world.check(result, sink ? withSinks : plain, `${JSON.stringify(attention)}, ${placement}, ${sink ? 'sink' : 'no sink'}, q ${qDtype}`);
            }
          }
        }
        for (const { pages } of placed.values()) pages.dispose();
      });
    }
  }
}

/** One world at one placement, against its answer. */
async function checkWorld(backend: Backend, seed: number, options: Omit<ConstructorParameters<typeof World>[1], 'scaleDivisor'>, placement: number | 'contiguous', attention: AttentionOptions = {}): Promise<void> {
  const numbers = random(seed);
  const world = new World(numbers, { ...options, scaleDivisor });
  const placed = await world.place(backend, numbers, placement);
  const result = await backend.attend({ ...world.call(placed, seed % 2 === 0 ? 'f16' : 'bf16'), ...attention });
  world.check(result, world.answer(attention), `${JSON.stringify(options)}, ${placement}, ${JSON.stringify(attention)}`);
  placed.pages.dispose();
}

const heads = { kvHeads: 2, queryHeads: 8 };

function testRest(test: Suite, open: () => Backend): void {
  for (const dtype of dtypes) {
    test(`xpu decode: kv 523, 37, 2011 and 13000, ${dtype}`, async () => {
      const lengths = [[1, 523], [1, 37], [1, 2011]] as const;
      for (const [i, headDim] of [64, 128].entries()) {
        for (const attention of [{}, { windowLeft: 127 }]) {
          await checkWorld(open(), 10 + i, { ...heads, headDim, lengths, dtype }, 16, attention);
          await checkWorld(open(), 12 + i, { ...heads, headDim, lengths: [[1, 13000]], dtype }, 64, attention);
        }
      }
    });
  }

  for (const [queryHeads, kvHeads] of [[71, 1], [16, 1], [17, 1]] as const) {
    test(`xpu large groups: ${queryHeads} heads on ${kvHeads}`, async () => {
      for (const dtype of ['e4m3fn', 'none'] as const) {
        await checkWorld(open(), 20, { kvHeads, queryHeads, headDim: 64, lengths: [[1, 1328], [5, 18], [33, 163]], dtype }, 16);
        await checkWorld(open(), 21, { kvHeads, queryHeads, headDim: 64, lengths: [[1, 523], [1, 37], [1, 2011]], dtype }, 64);
      }
    });
  }

  test('xpu speculative rows: 2 to 4 new tokens', async () => {
    for (const rows of [2, 3, 4]) {
      for (const kv of [[1328, 18, 463], [1025, 523, 37, 200]]) {
        for (const attention of [{}, { windowLeft: 256, windowRight: 0 }]) {
          await checkWorld(open(), 30 + rows, { ...heads, headDim: 128, lengths: kv.map((length) => [rows, length] as const), dtype: 'e4m3fn' }, 64, attention);
        }
      }
    }
  });

  test('xpu LSE: headDim 128 and 192', async () => {
    for (const headDim of [128, 192]) await checkWorld(open(), 40, { ...heads, headDim, lengths: [[1, 1328], [5, 18], [129, 463]], dtype: 'e4m3fn' }, 64);
  });

  for (const dtype of dtypes) {
    test(`xpu: a sink and a window over large negative logits give no NaN, ${dtype}`, async () => {
      const [queryHeads, kvHeads, headDim, tokens, blockSize] = [64, 8, 64, 960, 64];
      const side = { dtype: formatOf(dtype), granularity: 'tensor' } as const;
      const pages = open().createPages(pageLayout({ kvHeads, headDim, blockSize, k: side, v: side }), tokens / blockSize);
      const numbers = random(50);
      const key = new Float32Array(tokens * kvHeads * headDim);
      const groups = [-100, -60, -37, 9];
      // A row sees the last 128 keys: the first that it does not see has a logit of its own.
      const logit = (j: number): number => (j === tokens - 129 ? -133 : groups[Math.floor(j / 16) % 4]);
      for (let row = 0; row < tokens * kvHeads; row++) key[row * headDim] = logit(Math.floor(row / kvHeads));
      const value = numbers.normals(tokens * kvHeads * headDim);
      await open().append({ pages, key, value, slotMapping: Int32Array.from({ length: tokens }, (_, j) => j) });
      const largest = value.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      for (const rows of [1, 4, 40]) {
        const q = new Float32Array(rows * queryHeads * headDim);
        for (let row = 0; row < rows * queryHeads; row++) q[row * headDim] = 1;
        const { out, lse } = await open().attend({
          pages, q: narrow(q, 'bf16'), dtype: 'bf16', blockTable: Int32Array.from({ length: tokens / blockSize }, (_, i) => i),
          cuSeqlensQ: Int32Array.of(0, rows), seqUsedK: Int32Array.of(tokens), windowLeft: 127, windowRight: 0, softmaxScale: 1, sinks: new Float32Array(queryHeads).fill(0.55),
        });
        ok(out.every((x) => Math.abs(x) <= largest + 0.1), `${rows} rows: out of at most ${largest}`);
        ok(lse.every(Number.isFinite), `${rows} rows: finite lse`);
      }
      pages.dispose();
    });
  }
}

export function testXpu(test: Suite, open: () => Backend, options: GridOptions): void {
  testVarlen(test, open, options);
  testRest(test, open);
}
