import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { equal, is, match, ok, throws } from 'uvu/assert';
import { openModel } from '../../src/cli/model-run.js';
import { readText } from '../../src/cli/text.js';
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
  match(done.out, /\nint8, head, minmax keeps this model closest to f32: mean KL \d\.\de-5 at 0\.25 × the bytes\.\n- With int8, head, minmax, the likeliest /);
  match(done.out, /\n- 320 tokens of eval\.txt were evaluated\. Under 2,000 tokens, .*\n\nreport.html: the report\n$/);
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

test("formats go by vLLM's names, too, and f16 is there to compare with, once", async () => {
  const { out, ...done } = await run('evaluate', ...model, '--limit', '40', '--formats', 'fp8,f16,fp8_e5m2', '--scales', 'one,token-head', '--json');
  assertDone({ out, ...done });
  const { variants } = JSON.parse(out) as Evaluation;
  equal(variants.map(({ name, bytesPerToken }) => [name, bytesPerToken]), [
    ['f32', 4096], ['e4m3fn, scale 1', 1024], ['e4m3fn, token-head', 1088], ['f16', 2048], ['e5m2, scale 1', 1024], ['e5m2, token-head', 1088],
  ]);
  ok(variants[3].kl.mean < 1e-6);
});

test('scales that a checkpoint brings are compared as a calibration with the same text is', async () => {
  put('first.txt', readFileSync(text).subarray(0, 4000));
  const shared = ['--formats', 'int8', '--scales', 'head', '--limit', '300', '--json'];
  assertDone(await run('calibrate', '--model', orator, '--text', 'first.txt', '--limit', '300', '--dtype', 'int8', '--granularity', 'head', '-o', 'given.safetensors'));
  const { out, ...done } = await run('evaluate', ...model, '--calibrate', 'first.txt', '--given', 'given.safetensors', ...shared);
  assertDone({ out, ...done });
  const [, calibrated, given] = (JSON.parse(out) as Evaluation).variants;
  const { name, scales, ...figures } = given;
  equal([name, scales, given.observer], ['int8, head, given.safetensors', 'checkpoint', undefined]);
  const { name: _, scales: source, observer, ...expected } = calibrated;
  equal([source, observer, figures], ['calibrated', 'minmax', expected]);
  // What a checkpoint lacks is said beside the figures.
  put('one.json', new TextEncoder().encode('{ "kv_cache": { "dtype": "float8_e4m3fn", "scaling_factor": { "0": { "0": 0.02, "1": 0.02, "2": 0.02, "3": 1 } } } }'));
  const noted = await run('evaluate', ...model, '--given', 'one.json', '--formats', 'f16', '--limit', '20', '--json');
  is(noted.code, 0);
  match(noted.err, /^note: one\.json: .*\n$/);
  equal((JSON.parse(noted.out) as Evaluation).variants.map(({ name }) => name), ['f32', 'f16', 'e4m3fn, tensor, one.json']);
});

test('the first tokens of a text are those that the whole has, and more of it is not looked at', async () => {
  const whole = readFileSync(text);
  const { tokenizer, ...opened } = await openModel({ model: orator });
  let seen = 0;
  const counting = { ...opened, tokenizer: { ...tokenizer, encode: (piece: string) => tokenizer.encode(piece.slice(0, (seen = piece.length))) } };
  const { ids } = readText(text, 'text', counting);
  is(seen, whole.toString().length);
  for (const limit of [1, 2, 100, 5000, ids.length - 1, ids.length, ids.length + 1]) {
    equal(readText(text, 'text', counting, limit).ids, ids.slice(0, limit), `${limit}`);
    ok(seen < 40 * limit + 300, `${seen} characters for ${limit} tokens`);
  }
  // A character that a piece ends in, and more text than is taken at once.
  const euros = join(folder, 'euros.txt');
  writeFileSync(euros, '€'.repeat(2 ** 21));
  for (const limit of [1, 2, 3]) is(readText(euros, 'text', counting, limit).ids.length, limit);
  throws(() => readText(euros, 'text', counting), /euros.txt expected at most 4 MiB of text, got 6.0 MiB: --limit N takes its first tokens/);
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
    [[...model, '--formats', 'e4m3fn,e3m4'], /--formats expected some of f16, e4m3fn, e5m2, int8, with commas between, got "e3m4"/],
    [[...model, '--scales', ''], /--scales expected some of one, tensor, head, channel, token-head, group, with commas between, got ""/],
    [[...model, '--observers', 'max'], /--observers expected some of memoryless-minmax, static-minmax, minmax, mse/],
    [[...model, '--limit', '0'], /--limit expected a number of at least 1, got 0/],
    [[...model, '--window', '257'], /--window expected at most 256, the model's context, got 257/],
    [[...model, '-o', 'nowhere/report.html'], /nowhere\/report.html expected a folder that can be written to, got nowhere/],
    [[...model, '-o', ''], /the output expected the name of a file, got nothing/],
    [[...model, '-o', '.'], /\. expected a file, or nothing yet, got a folder or a device/],
    [[...model, '-o', 'socket'], /socket expected a file, or nothing yet, got a folder or a device/],
    [[...model, '-o', `${text}/report.html`], /report.html expected a folder that can be written to, got .*eval.txt/],
    [[...model, '-o', text], /-o expected a .html file, got .*eval.txt/],
    [['--model', orator, '--text', 'nowhere.txt'], /--text expected a text file, got nowhere.txt/],
    [[...model, '--calibrate', orator], /--calibrate expected a text file, got .*orator/],
    [[...model, 'report.html'], /expected options only, got report.html/],
    [[...model, '--scales', 'group', '--group-size', '24'], /--group-size expected a multiple of 8 that divides 64, the model's head dimension, got 24/],
    [[...model, '--backend', 'cuda'], /--backend expected wasm or webgpu, got cuda/],
  ];
  const server = createServer().listen(join(folder, 'socket'));
  await once(server, 'listening');
  for (const [args, message] of refusals) assertFailed(await run('evaluate', ...args), 2, message);
  server.close();
  put('empty.txt', new Uint8Array(0));
  put('latin.txt', Uint8Array.of(0x77, 0xe4, 0x68, 0x6c));
  const failures: [string[], RegExp][] = [
    [['--text', 'empty.txt'], /empty.txt expected text, got none/],
    [['--text', 'latin.txt'], /latin.txt expected text in UTF-8, got other bytes/],
    [['--text', text, '--given', orator], /--given expected a checkpoint with scales, got .*orator, which has none/],
    [['--text', text, '--given', 'short.json'], /--given expected scales of 4 layers, as the model has, got 1/],
  ];
  put('short.json', new TextEncoder().encode('{ "kv_cache": { "dtype": "float8_e4m3fn", "scaling_factor": { "0": { "0": 0.02 } } } }'));
  for (const [args, message] of failures) assertFailed(await run('evaluate', '--model', orator, ...args), 1, message);
});

test('a tokenizer of another model is found out before the work', async () => {
  const other = join(folder, 'other');
  cpSync(orator, other, { recursive: true });
  const json = JSON.parse(readFileSync(join(orator, 'tokenizer.json'), 'utf8'));
  chmodSync(join(other, 'tokenizer.json'), 0o644);
  writeFileSync(join(other, 'tokenizer.json'), JSON.stringify({ ...json, vocab: [...json.vocab, ['鯨', 0]] }));
  put('whale.txt', new TextEncoder().encode('鯨'));
  assertFailed(await run('evaluate', '--model', 'other', '--text', 'whale.txt'), 1, /other: its tokenizer expected tokens below 1024, as the model has them, got 1024/);
});
