/** What passes in Node, and fails in a page in each way that the runner must see from there: run by run.test.ts only. */
import { is, ok } from 'uvu/assert';
import { golden, goldenFiles } from '../../golden.js';
import { suite } from '../../suite.js';

const inPage = typeof process === 'undefined';

suite('needs a GPU', { skip: `${inPage ? 'the page' : 'Node'} has none` })('is never reached', () => {});

const test = suite('page');
test('has golden files and shared memory', () => {
  const files = goldenFiles('quantize');
  ok(files.length > 0);
  for (const file of files) ok(golden(file).length > 0, file);
  is(new Uint8Array(new SharedArrayBuffer(1)).length, 1);
});
test('fails', () => {
  if (inPage) throw new Error('as it should');
});
test('never ends', () => (inPage ? new Promise<void>(() => {}) : undefined), { seconds: 0.2 });
test('leaves an error behind', async () => {
  if (inPage) void Promise.reject(new Error('nobody waits'));
  // A page hears of it in a later turn.
  await new Promise((resolve) => setTimeout(resolve, 20));
});
