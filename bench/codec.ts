/** How many values per second do encode, decode and quantize take, with `out` given and without, for 1 M and 16 M values? */
import { decode, encode, quantize } from '../src/index.js';
import { report, time, type Figure } from './harness.js';
import { normals, SEED } from './inputs.js';

const MILLION = 2 ** 20;
const figures: Figure[] = [];

for (const millions of [1, 16]) {
  const n = millions * MILLION;
  const x = normals(SEED, n).map((value) => 3 * value);
  const bits = new Uint16Array(n).map((_, i) => (i * 331) & 0xffff);
  const out = new Uint8Array(n);
  const values = new Float32Array(n);
  const add = (name: string, run: () => void): void => {
    figures.push(time({ name: `${name}, ${millions} M`, build: 'baseline', threads: 1 }, (seconds) => ({ 'G values/s': n / 1e9 / seconds }), run));
  };
  for (const format of ['e4m3fn', 'e5m2'] as const) {
    add(`encode ${format}, out given`, () => void encode(x, format, { out }));
    add(`encode ${format}, fresh out`, () => void encode(x, format));
    add(`decode ${format}, out given`, () => void decode(out, format, { out: values }));
    add(`decode ${format}, fresh out`, () => void decode(out, format));
  }
  add('encode e4m3fn from bf16, out given', () => void encode(bits, 'e4m3fn', { from: 'bf16', out }));
  add('encode e4m3fn from f16, out given', () => void encode(bits, 'e4m3fn', { from: 'f16', out }));
  add('quantize rows of 128, out given', () => void quantize(x, { rowLength: 128, out }));
}
report('Codec: values per second', [{ title: 'the codec is the same in both builds, and uses this one', figures }]);
