import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { equal, is, match } from 'uvu/assert';
import { readTokenizer, readWeights } from '../../src/model/folder.js';
import { LlamaRunner } from '../../src/model/llama.js';
import { compareSharing, promptsOf } from '../../demo/share-prefix.js';
import { wasmBackend } from '../../src/index.js';
import { orator } from '../model/orator.js';
import { suite } from '../suite.js';

const test = suite('demo/share-prefix');

test('the second prompt computes its own end only, and goes on as it would alone', async () => {
  const runner = new LlamaRunner(readWeights(orator));
  const prompts = promptsOf(readFileSync(`${orator}/eval.txt`, 'utf8').slice(0, 4000), await readTokenizer(orator), runner);
  const backend = wasmBackend();
  const { alone, shared, counters } = await compareSharing(backend, runner, prompts);
  equal(alone.map(({ found, computed }) => [found, computed]), [[0, 217], [0, 223]]);
  equal(shared.map(({ found, computed }) => [found, computed]), [[0, 217], [208, 15]]);
  equal(shared.map(({ tokens }) => tokens), alone.map(({ tokens }) => tokens));
  equal(counters, { hits: 13, misses: 13, evictions: 0, stored: 0, fetched: 0 });
  backend.dispose();
});

test('npm run demo -- --share-prefix shows that, with the counters', () => {
  const main = fileURLToPath(new URL('../../demo/main.ts', import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', main, '--share-prefix', '--backend', 'wasm'], { encoding: 'utf8' });
  is(status, 0, stderr);
  match(stdout, /two prompts of 217 and 223 tokens, the first 209 of them the same, through one cache/);
  match(stdout, /^second +208 +15 +[\d.]+ +[\d.]+$/m);
  match(stdout, 'pages: 13 hits, 13 misses, 0 evictions, 0 stored, 0 fetched');
  match(stdout, 'both go on with the same 24 tokens as without sharing');
});
