import { equal, is } from 'uvu/assert';
import { KvCache, wasmBackend, type AttendCall, type Backend, type KvCacheOptions, type OutDtype, type Sequence } from '../../src/index.js';
import { suite } from '../suite.js';

const test = suite('cache, index arrays');
const backend = wasmBackend();
const shape = { layers: 1, queryHeads: 1, kvHeads: 1, headDim: 8, blockSize: 2 };

/** A cache, what its backend was asked, and a way to take a sequence a step further. */
function watched(synchronous: boolean, options: Partial<KvCacheOptions> = {}) {
  const calls: AttendCall<OutDtype>[] = [];
  const watching: Backend = {
    kind: 'wasm', synchronous,
    createPages: (layout, count) => backend.createPages(layout, count), append: (call) => backend.append(call),
    requantize: (call) => backend.requantize(call),
    attend: (call) => (calls.push(call), backend.attend(call)),
    dispose: () => {}, [Symbol.dispose]: () => {},
  };
  const cache = new KvCache(watching, { ...shape, capacity: 64, ...options });
  const begin = (sequence: Sequence, tokens: number) => {
    const step = cache.begin([{ sequence, tokens }]);
    const x = new Float32Array(8 * tokens);
    void step.append(0, x, x);
    void step.attend(0, x);
    return step;
  };
  return { cache, calls, begin };
}

test('a step takes over the arrays of the one before, and nothing of what stood in them', () => {
  const { cache, calls, begin } = watched(true);
  const sequence = cache.createSequence();
  begin(sequence, 12).commit();
  begin(sequence, 1).commit();
  equal([...calls[1].blockTable!], [0, 1, 2, 3, 4, 5, 6, -1]);
  sequence.truncate(8);
  begin(sequence, 1).abort();
  is(calls[2].blockTable, calls[1].blockTable);
  equal([...calls[2].blockTable!], [...sequence.blocks, 4, -1, -1, -1]);
  equal([...calls[2].seqUsedK], [9]);
  cache.dispose();
});

test('steps that are open at the same time have arrays of their own', () => {
  const { cache, calls, begin } = watched(true);
  const [a, b] = [cache.createSequence(), cache.createSequence()];
  begin(a, 1).commit();
  const steps = [begin(a, 1), begin(b, 1)];
  is(calls[1].blockTable, calls[0].blockTable);
  is.not(calls[2].blockTable, calls[1].blockTable);
  equal(calls.map(({ blockTable, seqUsedK }) => [...blockTable!, ...seqUsedK]), [[0, 2], [0, 2], [1, 1]]);
  for (const step of steps) step.commit();
  cache.dispose();
});

test('a backend that answers later keeps what it was given', () => {
  const { cache, calls, begin } = watched(false);
  const sequence = cache.createSequence();
  for (let i = 0; i < 2; i++) begin(sequence, 1).commit();
  equal(calls.map(({ seqUsedK }) => [...seqUsedK]), [[1], [2]]);
  cache.dispose();
});

test('of a sequence without end, the table names the pages that a ring still has', () => {
  const { cache, calls, begin } = watched(true, { slidingWindow: 5, sinkTokens: 3, chunk: 2, context: 2 ** 29 });
  const sequence = cache.createSequence();
  for (let i = 0; i < 15; i++) begin(sequence, 2).commit();
  // Tokens 24 to 29 of a ring that begins at 3: its blocks 10 to 13, in three pages that come round.
  const { pages } = sequence.state.held[0];
  equal([...calls.at(-1)!.blockTable!], [...Array.from({ length: 10 }, () => -1), pages[3], pages[4], pages[2], pages[3], -1, -1]);
  cache.dispose();
});
