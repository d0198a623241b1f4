import { ok } from 'uvu/assert';
import { Calibration, type ObserverName } from '../../src/index.js';
import { bytesKept, bytesMade } from '../cache/heap-growth.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('calibration, heap');
const names = ['memoryless-minmax', 'static-minmax', 'minmax', 'mse'] as const satisfies readonly ObserverName[];
/** Tokens of a call: `bytesKept` makes 18,000, and so shows more than 10⁶ tokens. */
const TOKENS = 64;

for (const observer of names) {
  test(`10⁶ tokens leave nothing behind: ${observer}`, () => {
    // A fourth of mse's search is as good for this, and takes 1 s in place of 4.
    const calibration = new Calibration({ layers: 1, kvHeads: 1, headDim: 8, observer, maxshrink: observer === 'mse' ? 0.05 : undefined });
    const x = random(1).normals(TOKENS * 8);
    const { per1000, per2000 } = bytesKept(() => calibration.observe(0, x, x));
    ok(calibration.tokens(0) > 1e6);
    // As of the cache's steps: an empty object per call would be 64 KB after 2,000.
    ok(per2000 < 32_000, `2,000 calls keep ${per2000} bytes, 1,000 keep ${per1000}`);
  });
}

test('a call makes no arrays of its length', () => {
  for (const observer of names) {
    const calibration = new Calibration({ layers: 1, kvHeads: 1, headDim: 8, observer });
    const bits = new Uint16Array(1e5).fill(0x3f80);
    const observe = (): void => calibration.observe(0, bits, bits, { dtype: 'bf16' });
    observe();
    const { heap, arrays } = bytesMade(observe, 20);
    // As f32 they would be 400 KB. Each of the 40 ranges that mse tries makes 2 KB of garbage.
    ok(heap + arrays < 200_000, `${observer}: ${heap} bytes on the heap, ${arrays} in arrays`);
  }
});
