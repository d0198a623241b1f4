/** All 2³² f32 bit patterns through each of the four maps: about a minute and a half in all. */
import { encode } from '../../src/index.js';
import { nvidiaMap } from '../golden.js';
import { suite } from '../suite.js';

const test = suite('wasm/codec, exhaustive');
const CHUNK = 1 << 20;

for (const format of ['e4m3fn', 'e5m2'] as const) {
  for (const [mode, saturate] of [['satfinite', true], ['nosat', false]] as const) {
    test(`${format} ${mode}: 2^32 inputs equal NVIDIA's map`, () => {
      const { starts, codeOf } = nvidiaMap(format, mode);
      const patterns = new Uint32Array(CHUNK);
      const x = new Float32Array(patterns.buffer);
      const out = new Uint8Array(CHUNK);
      let run = 0;
      let seen = 0;
      for (let base = 0; base < 2 ** 32; base += CHUNK) {
        for (let i = 0; i < CHUNK; i++) patterns[i] = base + i;
        encode(x, format, { saturate, out });
        for (let from = base; from < base + CHUNK; ) {
          while (run + 1 < starts.length && starts[run + 1] <= from) run++;
          const to = Math.min(base + CHUNK, starts[run + 1] ?? 2 ** 32);
          const code = codeOf(from);
          for (let i = from - base; i < to - base; i++) {
            if (out[i] !== code) throw new Error(`0x${(base + i).toString(16)}: expected ${code}, got ${out[i]}`);
          }
          seen += to - from;
          from = to;
        }
      }
      if (seen !== 2 ** 32) throw new Error(`${seen} of 2^32 inputs seen`);
    }, { seconds: 600 });
  }
}
