/** How long does attention take: one token over a long cache, and a prompt over itself? 32 query and 8 KV heads of 128. */
import { pageLayout, wasmBackend, type Format } from '../src/index.js';
import { builds } from '../tests/builds.js';
import { random } from '../tests/random.js';
import { report, SEED, time, type Figure } from './harness.js';

const [queryHeads, kvHeads, headDim, blockSize] = [32, 8, 128, 16];
const KEYS = 16384;
const PROMPT = 1024;
const numbers = random(SEED);
const figures: Figure[] = [];
/** Multiply-adds of q · k and of p · v count as two each. */
const gigaflop = (pairs: number): number => (4 * pairs * queryHeads * headDim) / 1e9;

const chunk = numbers.normals(PROMPT * kvHeads * headDim);
const prompt = numbers.normals(PROMPT * queryHeads * headDim);
const token = prompt.subarray(0, queryHeads * headDim);

function measure(dtype: Format, simd: (typeof builds)[number]): void {
  const backend = wasmBackend({ simd });
  const pages = backend.createPages(pageLayout({ kvHeads, headDim, blockSize, k: { dtype }, v: { dtype } }), KEYS / blockSize);
  for (let first = 0; first < KEYS; first += PROMPT) {
    backend.append({ pages, key: chunk, value: chunk, slotMapping: Int32Array.from({ length: PROMPT }, (_, i) => first + i) });
  }
  // Pages in an order as if many sequences had come and gone: 5 and the page count have no common divisor.
  const blockTable = Int32Array.from({ length: KEYS / blockSize }, (_, i) => (i * 5) % (KEYS / blockSize));
  const out = new Float32Array(prompt.length);
  const lse = new Float32Array(PROMPT * queryHeads);
  for (const keys of [4096, KEYS]) {
    const call = { pages, q: token, blockTable, cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(keys), out: out.subarray(0, token.length), lse: lse.subarray(0, queryHeads) };
    figures.push(time(`${simd} decode ${dtype}, ${keys} keys`, gigaflop(keys), 'GFLOP', () => void backend.attend(call)));
  }
  const call = { pages, q: prompt, blockTable, cuSeqlensQ: Int32Array.of(0, PROMPT), seqUsedK: Int32Array.of(PROMPT), out, lse };
  figures.push(time(`${simd} prefill ${dtype}, ${PROMPT} causal`, gigaflop((PROMPT * (PROMPT + 1)) / 2), 'GFLOP', () => void backend.attend(call)));
  backend.dispose();
}
for (const dtype of ['e4m3fn', 'e5m2', 'f16', 'f32'] as const) for (const simd of builds) measure(dtype, simd);
report('Attention: GFLOP per second', figures);
