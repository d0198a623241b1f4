/** Decode steps as a model's loop takes them, with arrays that the loop has made before: what a step allocates is the cache's own doing. */
import { KvCache, type WasmBackend } from '../../src/index.js';
import { random } from '../random.js';

const shape = { layers: 2, queryHeads: 4, kvHeads: 2, headDim: 64 };

/** A step of two sequences that grow from `shortest` to `longest` tokens, a token each, and then are cut back. */
export function decodeSteps(backend: WasmBackend, shortest: number, longest: number): () => void {
  const { layers, queryHeads, kvHeads, headDim } = shape;
  const cache = new KvCache(backend, { ...shape, capacity: 2 * (longest + 16) });
  const sequences = [cache.createSequence(), cache.createSequence()];
  const numbers = random(longest);

  function step(tokens: number): () => void {
    const entries = sequences.map((sequence) => ({ sequence, tokens }));
    const key = numbers.normals(2 * tokens * kvHeads * headDim);
    const value = numbers.normals(2 * tokens * kvHeads * headDim);
    const q = numbers.normals(2 * tokens * queryHeads * headDim);
    const result = { out: new Float32Array(q.length), lse: new Float32Array(2 * tokens * queryHeads) };
    return () => {
      const open = cache.begin(entries);
      for (let layer = 0; layer < layers; layer++) {
        void open.append(layer, key, value);
        open.attendSync(layer, q, result);
      }
      open.commit();
    };
  }

  if (shortest > 0) step(shortest)();
  const decode = step(1);
  return () => {
    if (sequences[0].length === longest) for (const sequence of sequences) sequence.truncate(shortest);
    decode();
  };
}
