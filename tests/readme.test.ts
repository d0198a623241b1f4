/** What a user reads first is what must run: every example of the README, on the built package. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { is, match } from 'uvu/assert';
import { noAdapter } from './gpu/adapter.js';
import { adapterEnvironment } from './gpu/environment.js';
import { suite } from './suite.js';

const test = suite('README');
const root = fileURLToPath(new URL('..', import.meta.url));
const examples = [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code);

test('has its four examples', () => {
  is(examples.length, 4);
});

/** Runs an example in a file inside the package, where `fp8-kv` is the package itself. */
function run(code: string, name: string, env = process.env): string {
  const folder = join(root, 'build', 'readme');
  const file = join(folder, `${name}.mjs`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, code);
  try {
    return execFileSync(process.execPath, [file], { encoding: 'utf8', env });
  } finally {
    rmSync(file);
  }
}

test('the cache', () => {
  match(run(examples[0], 'cache'), /^2 and 5 tokens, 6528 bytes each\n$/);
});

test('the operations', () => {
  match(run(examples[1], 'operations'), /^1 Float32Array\(2\) \[ 0.6931\d*, 1.0986\d* \]\n$/);
});

test('on a GPU', async () => {
  if (noAdapter && process.env.REQUIRE_GPU !== '1') return;
  match(run(examples[2], 'gpu', await adapterEnvironment()), /^3 tokens\n$/);
});

test('the codec', () => {
  const output = run(examples[3], 'codec');
  match(output, 'Uint8Array(4) [ 56, 128, 126, 127 ]');
  match(output, 'Float32Array(4) [ 1, -0, 448, NaN ]');
  match(output, /Float32Array\(2\) \[ 0.140625, 0.283482\d* \]/);
});
