/** What steps leave behind, and what they make, in bytes: the heap, and the arrays that lie outside of it. */
import { collectGarbage } from '../gc.js';

const middle = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1];

const STEPS_PER_SAMPLE = 1000;
const SAMPLES = 15;

function bytesInUse(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/**
 * Bytes that 1,000 and 2,000 steps leave behind. Medians: V8 compiles when it likes, and that stays too; and from one collection
 * to the next the heap swings by 30 KB and back.
 */
export function bytesKept(step: () => void): { per1000: number; per2000: number } {
  for (let i = 0; i < 3 * STEPS_PER_SAMPLE; i++) step();
  const samples = Array.from({ length: SAMPLES }, () => {
    for (let i = 0; i < STEPS_PER_SAMPLE; i++) step();
    return bytesInUse();
  });
  const grown = (distance: number): number => middle(samples.slice(distance).map((bytes, i) => bytes - samples[i]));
  return { per1000: grown(1), per2000: grown(2) };
}

/** Bytes of one step's garbage: on the heap, and in arrays outside of it. Medians, as collections fall into some steps. */
export function bytesMade(step: () => void, times = 200): { heap: number; arrays: number } {
  const measured = (run: () => void): { heap: number; arrays: number } => {
    const all = Array.from({ length: times }, () => {
      const before = process.memoryUsage();
      run();
      const after = process.memoryUsage();
      return { heap: after.heapUsed - before.heapUsed, arrays: after.arrayBuffers - before.arrayBuffers };
    });
    return { heap: middle(all.map(({ heap }) => heap)), arrays: middle(all.map(({ arrays }) => arrays)) };
  };
  const looking = measured(() => {});
  const { heap, arrays } = measured(step);
  return { heap: heap - looking.heap, arrays };
}
