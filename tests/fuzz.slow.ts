/**
 * Every reader, given files that are nearly valid: it reads them, twice the same, or throws a named error; it does not hang
 * and takes little memory. `FP8_KV_FUZZ_SECONDS` is the time of each, `FP8_KV_FUZZ_SEED` the seed of its first file: a failure
 * names the seed of its own, with which it is the first.
 */
import { ok } from 'uvu/assert';
import { readers } from './fuzz/readers.js';
import { fuzz } from './fuzz/run.js';
import { suite } from './suite.js';

const seconds = Number(process.env.FP8_KV_FUZZ_SECONDS ?? 20);
const seed = Number(process.env.FP8_KV_FUZZ_SEED ?? Date.now() % 2 ** 30);
const module = new URL('fuzz/readers.ts', import.meta.url).href;
const test = suite(`fuzzing, from seed ${seed}`);

for (const name of Object.keys(readers)) {
  test(name, async () => {
    const { files, fault } = await fuzz(module, name, seed, seconds);
    ok(fault === undefined, `${name}, after ${files} files (FP8_KV_FUZZ_SEED is the file's number): ${fault}`);
    ok(files > 0, 'no file was read');
  }, { seconds: 60 + 2 * seconds });
}
