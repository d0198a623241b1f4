/** Fuzzing finds what is planted, and nothing where nothing is. */
import { equal, is, match, ok } from 'uvu/assert';
import { suite } from '../suite.js';
import { mutate } from './mutate.js';
import { readers } from './planted.js';
import { fuzz } from './run.js';

const test = suite('fuzzing');
const planted = new URL('planted.ts', import.meta.url).href;

test('finds nothing where nothing is', async () => {
  const { files, fault } = await fuzz(planted, 'none', 1, 0.5);
  is(fault, undefined);
  ok(files > 100, `${files} files`);
});

for (const [name, reason] of Object.entries({
  'an error without a name': /^file \d+: threw SyntaxError/,
  'an offset beyond the file': /^file \d+: named byte 5 of [0-4]$/,
  memory: /^file \d+: took \d+ bytes of memory/,
  'a loop without end': /^file \d+: took longer than 1 s/,
  'another result': /^a valid file: read the file in another way/,
  'a changed file': /^a valid file: changed the file/,
})) {
  test(`finds ${name}`, async () => {
    const { fault } = await fuzz(planted, name, 1, 30, 1);
    match(fault ?? 'nothing', reason);
    // The number is the seed with which this file is the first.
    const seed = /^file (\d+)/.exec(fault!)?.[1];
    if (seed !== undefined) match((await fuzz(planted, name, Number(seed), 30, 1)).fault!, new RegExp(`^file ${seed}: `));
  });
}

test('a seed is a file', () => {
  const { samples } = readers.none;
  equal(mutate(samples, 5), mutate(samples, 5));
  ok(new Set(Array.from({ length: 100 }, (_, seed) => Buffer.from(mutate(samples, seed)).toString('latin1'))).size > 50);
});
