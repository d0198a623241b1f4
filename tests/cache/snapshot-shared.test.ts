import { is } from 'uvu/assert';
import { KvCache, loadSnapshot, saveSnapshot, wasmBackend } from '../../src/index.js';
import { suite } from '../suite.js';

const test = suite('snapshots of sequences that share pages');
const backend = wasmBackend();

test('a ring that has lost tokens at both ends of a page shares it still', async () => {
  const options = { kvHeads: 1, headDim: 8, layers: 1, capacity: 64, blockSize: 4, slidingWindow: 1, chunk: 8, sequences: 2 };
  const cache = new KvCache(backend, options);
  const sequence = cache.createSequence();
  const x = (tokens: number): Float32Array => new Float32Array(8 * tokens).fill(1);
  const step = cache.begin([{ sequence, tokens: 8 }]);
  step.append(0, x(8), x(8));
  step.commit();
  const twin = sequence.fork();
  const aborted = cache.begin([{ sequence: twin, tokens: 6 }]);
  aborted.append(0, x(6), x(6));
  aborted.abort();
  // Of tokens 4 to 7, which lie in one page, the twin has but the third.
  twin.truncate(7);

  const target = new KvCache(backend, options);
  await loadSnapshot(target, saveSnapshot(cache));
  is(target.freePages, 1);
  cache.dispose();
  target.dispose();
});
