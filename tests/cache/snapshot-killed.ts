/** A cache in one of two states, the same in every process. */
import { KvCache, type Sequence, type WasmBackend } from '../../src/index.js';
import { random } from '../random.js';

const shape = { layers: 4, queryHeads: 2, kvHeads: 2, headDim: 32 };

export function killedCache(backend: WasmBackend, state: 'empty' | 'old' | 'new'): { cache: KvCache; sequences: readonly Sequence[] } {
  const cache = new KvCache(backend, { ...shape, capacity: 1024 });
  if (state === 'empty') return { cache, sequences: [] };
  const numbers = random(9);
  const grow = (sequence: Sequence, tokens: number): void => {
    const step = cache.begin([{ sequence, tokens }]);
    for (let layer = 0; layer < shape.layers; layer++) step.append(layer, numbers.normals(tokens * 64), numbers.normals(tokens * 64));
    step.commit();
  };
  const sequence = cache.createSequence();
  grow(sequence, 300);
  if (state === 'new') {
    grow(sequence, 77);
    grow(sequence.fork(), 10);
  }
  return { cache, sequences: [...cache.live] };
}
