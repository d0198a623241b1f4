/** How much faster is attention on more threads? FP8, each number of threads in turn in the same rounds. */
import { availableParallelism } from 'node:os';
import { pageLayout, wasmBackend, type AttendCall, type Backend } from '../src/index.js';
import { builds } from '../tests/builds.js';
import { random } from '../tests/random.js';
import { report, SEED, type Figure } from './harness.js';

const blockSize = 16;
const counts = [1, ...[2, availableParallelism()].filter((threads, i, all) => threads > 1 && all.indexOf(threads) === i)];
const questions = [
  { name: 'decode, 512 keys, 14/2 heads of 64', rows: 1, keys: 512, queryHeads: 14, kvHeads: 2, headDim: 64, rounds: 60, atOnce: 40 },
  { name: 'decode, 2048 keys, 14/2 heads of 64', rows: 1, keys: 2048, queryHeads: 14, kvHeads: 2, headDim: 64, rounds: 60, atOnce: 20 },
  { name: 'decode, 4096 keys, 32/8 heads of 128', rows: 1, keys: 4096, queryHeads: 32, kvHeads: 8, headDim: 128, rounds: 30, atOnce: 10 },
  { name: 'decode, 16384 keys, 32/8 heads of 128', rows: 1, keys: 16384, queryHeads: 32, kvHeads: 8, headDim: 128, rounds: 20, atOnce: 4 },
  { name: 'decode, 16384 keys, 8/1 heads of 128', rows: 1, keys: 16384, queryHeads: 8, kvHeads: 1, headDim: 128, rounds: 30, atOnce: 10 },
  { name: 'prefill, 1024 tokens, 32/8 heads of 128', rows: 1024, keys: 1024, queryHeads: 32, kvHeads: 8, headDim: 128, rounds: 9, atOnce: 1 },
] as const;
type Question = (typeof questions)[number];

function callOn(backend: Backend, { rows, keys, queryHeads, kvHeads, headDim }: Question): AttendCall {
  const numbers = random(SEED);
  const blocks = keys / blockSize;
  const pages = backend.createPages(pageLayout({ kvHeads, headDim, blockSize }), blocks);
  const values = numbers.normals(keys * kvHeads * headDim);
  void backend.append({ pages, key: values, value: values, slotMapping: Int32Array.from({ length: keys }, (_, i) => i) });
  return {
    pages, q: numbers.normals(rows * queryHeads * headDim), blockTable: Int32Array.from({ length: blocks }, (_, i) => (i * 5) % blocks),
    cuSeqlensQ: Int32Array.of(0, rows), seqUsedK: Int32Array.of(keys), out: new Float32Array(rows * queryHeads * headDim), lse: new Float32Array(rows * queryHeads),
  };
}

const simd = builds[builds.length - 1];
const backends = counts.map((threads) => wasmBackend({ simd, threads }));
const figures: Figure[] = [];
for (const question of questions) {
  const { name, rows, keys, queryHeads, headDim, rounds, atOnce } = question;
  const pairs = rows === 1 ? keys : (rows * (rows + 1)) / 2;
  const turns = backends.map((backend) => ({ backend, call: callOn(backend, question), seconds: [] as number[] }));
  for (let round = -2; round < rounds; round++) {
    for (const { backend, call, seconds } of turns) {
      for (let i = 0; i < atOnce; i++) {
        const start = performance.now();
        await backend.attend(call);
        if (round >= 0) seconds.push((performance.now() - start) / 1000);
      }
    }
  }
  let alone = 0;
  for (const { backend, call, seconds } of turns) {
    seconds.sort((a, b) => a - b);
    const median = seconds[seconds.length >> 1];
    if (backend.threads === 1) alone = median;
    const faster = `${backend.threads} thread${backend.threads === 1 ? '' : 's'}, ${(alone / median).toFixed(2)}×`;
    figures.push({ name: `${name}: ${faster}`, median, min: seconds[0], runs: seconds.length, work: (4 * pairs * queryHeads * headDim) / 1e9, unit: 'GFLOP' });
    call.pages.dispose();
  }
}
for (const backend of backends) backend.dispose();
report(`Attention on several threads, ${simd} build: GFLOP per second, and times one thread`, figures);
