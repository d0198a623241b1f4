/** What does a decode step leave on the heap, and how much garbage does it make? Two layers, two sequences, short and long. */
import { wasmBackend } from '../src/index.js';
import { decodeSteps } from '../tests/cache/decode-steps.js';
import { bytesKept, bytesMade } from '../tests/cache/heap-growth.js';
import { figureOf, report } from './harness.js';

const backend = wasmBackend();

function timesOf(step: () => void): number[] {
  const times = Array.from({ length: 1000 }, () => {
    const start = performance.now();
    step();
    return performance.now() - start;
  });
  return times.sort((a, b) => a - b);
}

const figures = [[0, 64], [1024, 1088]].map(([shortest, longest]) => {
  const step = decodeSteps(backend, shortest, longest);
  const kept = bytesKept(step);
  const made = bytesMade(step);
  return figureOf({ name: `${shortest} to ${longest} tokens`, build: backend.simd, threads: 1 }, timesOf(step), () => ({
    'kept by 1,000 steps, bytes': kept.per1000,
    'by 2,000': kept.per2000,
    'made by a step, bytes': made.heap,
    'in arrays': made.arrays,
  }));
});
report('Decode: the heap', [{ title: '2 layers, 4/2×64', figures }]);
