import { is, ok } from 'uvu/assert';
import { wasmBackend } from '../../src/index.js';
import { suite } from '../suite.js';
import { decodeSteps } from './decode-steps.js';
import { bytesKept, bytesMade } from './heap-growth.js';

const test = suite('cache, heap');
const backend = wasmBackend();

test('decode steps leave nothing behind: 2,000 of them no more than 1,000', () => {
  const { per1000, per2000 } = bytesKept(decodeSteps(backend, 0, 64));
  // The least that a step could keep, an empty object in a list, would be 32 KB after 1,000 and 64 KB after 2,000.
  ok(per2000 < 32_000, `2,000 steps keep ${per2000} bytes, 1,000 keep ${per1000}`);
});

test('a step makes the same arrays for a long sequence as for a short one: none are copied', () => {
  const [short, long] = [[0, 64], [1024, 1088]].map(([shortest, longest]) => {
    const step = decodeSteps(backend, shortest, longest);
    for (let i = 0; i < 1000; i++) step();
    return bytesMade(step).arrays;
  });
  is(long, short);
  ok(short <= 256, `${short} bytes of arrays in each step`);
});
