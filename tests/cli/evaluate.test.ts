import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { equal, is, match, ok } from 'uvu/assert';
import type { Evaluation } from '../../src/evaluate/evaluation.js';
import { orator } from '../model/orator.js';
import { suite } from '../suite.js';
import { assertDone, assertFailed, commandLine } from './harness.js';

const test = suite('cli/evaluate');
const { folder, run, put, get, remove } = commandLine();
test.after(remove);

const text = join(orator, 'eval.txt');
const model = ['--model', orator, '--text', text];

test('a table, and a report in a file of its own', async () => {
  const done = await run('evaluate', ...model, '--limit', '400', '--formats', 'int8,e4m3fn', '--scales', 'one,head', '-o', 'report.html');
  assertDone(done);
  match(done.out, /^model {8}orator: 4 layers, 4 query and 2 KV heads of 64\nbackend {6}wasm, \w+ build\nevaluated {4}320 tokens of eval.txt, 256 at a time, through 5 caches\ncalibrated {3}with eval.txt, its first fifth: 80 tokens\n/);
  match(done.out, /\nf32 +4096 +1\.00× +\d+\.\d{3} +– +– +– +–\n/);
  match(done.out, /\nint8, head, minmax +1024 +4\.00× +\d+\.\d{3} +[+−]\d\.\d{3} % +\d\.\de-\d +\d\.\de-\d +\d\d\.\d\d %\n/);
  match(done.out, /\nreport.html: the report\n$/);
  const page = Buffer.from(get('report.html')).toString();
  match(page, /^<!doctype html>/i);
  ok(page.includes('e4m3fn, head, minmax') && page.includes('320 tokens'));
});

test('--json gives the evaluation, of a text and another to calibrate with', async () => {
  put('other.txt', new TextEncoder().encode('The whale is a matter of the Senate, and of the sea. '.repeat(9)));
  const { out, ...done } = await run('evaluate', ...model, '--calibrate', 'other.txt', '--limit', '300', '--formats', 'e5m2', '--scales', 'channel,token-head,group', '--observers', 'mse', '--group-size', '8', '--window', '100', '--json');
  assertDone({ out, ...done });
  const { version, model: ran, text: evaluated, calibration, variants } = JSON.parse(out) as Evaluation;
  equal([version, ran.name, ran.headDim, evaluated], [1, 'orator', 64, { name: 'eval.txt', tokens: 300, window: 100 }]);
  is(calibration!.name, 'other.txt');
  equal(variants.map(({ name }) => name), ['f32', 'e5m2, channel, mse', 'e5m2, token-head', 'e5m2, group 8']);
  ok(variants.slice(1).every(({ kl }) => kl.mean > 0 && kl.mean < 1));
});

test('Ctrl-C leaves no file behind', async () => {
  const before = readdirSync(folder).sort();
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), main, 'evaluate', ...model, '-o', 'interrupted.html'], { cwd: folder });
  let err = '';
  child.stderr.on('data', (chunk: Buffer) => (err += chunk));
  // What comes first is said when the work begins.
  child.stdout.once('data', () => void setTimeout(() => child.kill('SIGINT'), 300));
  const code = await new Promise((resolve) => void child.once('close', resolve));
  is(err, 'fp8-kv evaluate: interrupted: nothing was written\n');
  is(code, 130);
  equal(readdirSync(folder).sort(), before);
});

test('what does not fit is said before a model is read', async () => {
  const refusals: [string[], RegExp][] = [
    [['--text', text], /expected --model DIR/],
    [['--model', 'nowhere', '--text', text], /--model expected a folder with config.json, got nowhere/],
    [['--model', orator], /expected --text FILE/],
    [[...model, '--formats', 'e4m3fn,e3m4'], /--formats expected some of e4m3fn, e5m2, int8, with commas between, got "e3m4"/],
    [[...model, '--scales', ''], /--scales expected some of one, tensor, head, channel, token-head, group, with commas between, got ""/],
    [[...model, '--observers', 'max'], /--observers expected some of memoryless-minmax, static-minmax, minmax, mse/],
    [[...model, '--limit', '0'], /--limit expected a number of at least 1, got 0/],
    [[...model, '--window', '257'], /--window expected at most 256, the model's context, got 257/],
    [[...model, '-o', 'nowhere/report.html'], /nowhere\/report.html expected a folder that can be written to, got nowhere/],
    [[...model, '-o', ''], /the output expected the name of a file, got nothing/],
    [[...model, '-o', '.'], /\. expected a file, or nothing yet, got a folder or a device/],
    [[...model, '-o', 'socket'], /socket expected a file, or nothing yet, got a folder or a device/],
    [[...model, '-o', `${text}/report.html`], /report.html expected a folder that can be written to, got .*eval.txt/],
    [[...model, 'report.html'], /expected options only, got report.html/],
    [[...model, '--scales', 'group', '--group-size', '24'], /--group-size expected a multiple of 8 that divides 64, the model's head dimension, got 24/],
    [[...model, '--backend', 'cuda'], /--backend expected wasm or webgpu, got cuda/],
  ];
  const server = createServer().listen(join(folder, 'socket'));
  await once(server, 'listening');
  for (const [args, message] of refusals) assertFailed(await run('evaluate', ...args), 2, message);
  server.close();
  put('empty.txt', new Uint8Array(0));
  assertFailed(await run('evaluate', '--model', orator, '--text', 'empty.txt'), 1, /empty.txt expected text, got none/);
});
