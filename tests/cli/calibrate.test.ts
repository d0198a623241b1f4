import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { equal, is, match, not, ok } from 'uvu/assert';
import { calibrate } from '../../src/cli/calibrate.js';
import { UsageError } from '../../src/cli/command.js';
import { editJson } from '../../src/cli/edit-json.js';
import { calibrateModel } from '../../src/evaluate/calibrate.js';
import { Calibration, readScales, wasmBackend, type CalibrationOptions, type CheckpointScales } from '../../src/index.js';
import { LlamaRunner } from '../../src/model/llama.js';
import { readTokenizer, readWeights } from '../../src/model/folder.js';
import type { SimdBuild } from '../../src/wasm/features.js';
import { assertSameBits } from '../bits.js';
import { orator } from '../model/orator.js';
import { suite } from '../suite.js';
import { assertDone, assertFailed, commandLine } from './harness.js';

const test = suite('fp8-kv calibrate');
const { folder, run, interrupt, get, put, remove } = commandLine();
test.after(remove);

const text = join(orator, 'eval.txt');
const LIMIT = 700;
const WINDOW = 256;
const source = ['--model', orator, '--text', text, '--limit', `${LIMIT}`];

/** Which kernels the command has: another process may have others, and with them other last bits of attention. */
async function buildOfCommand(): Promise<SimdBuild> {
  const { out } = await run('calibrate', '--model', orator, '--text', text, '--limit', '2', '-o', 'build.safetensors', '--json');
  // The folder is a checkpoint later on, of other scales.
  rmSync(join(folder, 'build.safetensors'));
  return /^wasm, (\w+) build$/.exec((JSON.parse(out) as { readonly backend: string }).backend)![1] as SimdBuild;
}

const simd = await buildOfCommand();

/** The scales that `Calibration` gives. */
async function expectedScales(options: Partial<CalibrationOptions>, batch?: number) {
  const runner = new LlamaRunner(readWeights(orator), WINDOW);
  const { bos, encode } = await readTokenizer(orator);
  const { layers, queryHeads, kvHeads, headDim } = runner.config;
  const calibration = new Calibration({ layers, queryHeads, kvHeads, headDim, ...options });
  using backend = wasmBackend({ simd });
  await calibrateModel([calibration], encode(readFileSync(text, 'utf8')).slice(1, LIMIT + 1), { backend, runner, bos, window: WINDOW, batch });
  return calibration.scales();
}

const whole = await expectedScales({ observer: 'minmax' });

interface Printed {
  readonly layers: readonly { readonly k: number[]; readonly v: number[]; readonly q?: number[] }[];
  readonly [field: string]: unknown;
}

const parts = ({ layers }: Printed): (Float32Array | undefined)[] => layers.flatMap(({ k, v, q }) => [k, v, q].map((side) => side && Float32Array.from(side)));

/** What is printed, what is inspected and what is read are the bits of the calibration. */
async function assertWritten(printed: Printed, place: string, options: Partial<CalibrationOptions>, batch?: number): Promise<CheckpointScales> {
  const expected = await expectedScales(options, batch);
  const wanted = expected.layers.flatMap(({ scale, qScale }) => [scale.k, scale.v, qScale]);
  const inspected = await run('inspect', place, '--json');
  assertDone(inspected);
  const read = (await readScales(join(folder, place))) as CheckpointScales;
  const found = [parts(printed), parts(JSON.parse(inspected.out) as Printed), read.layers.flatMap(({ scale, qScale }) => [scale.k, scale.v, qScale])];
  for (const sides of found) {
    is(sides.length, wanted.length);
    for (const [i, side] of sides.entries()) {
      is(side === undefined, wanted[i] === undefined);
      if (side) assertSameBits(side, wanted[i]!);
    }
  }
  equal([read.dtype, read.granularity], [expected.dtype, expected.granularity]);
  return read;
}

test('scales per head, of queries too, and a configuration, are read to the bits of Calibration', async () => {
  const result = await run('calibrate', ...source, '--observer', 'mse', '--granularity', 'head', '--queries', '-o', 'scales.safetensors', '--config', 'config.json', '--json');
  assertDone(result);
  const { layers, next, notes, backend, ...facts } = JSON.parse(result.out) as Printed;
  equal(facts, {
    model: 'orator', text: { name: 'eval.txt', tokens: LIMIT, window: WINDOW }, dtype: 'e4m3fn', granularity: 'head', observer: 'mse', queries: true, output: 'scales.safetensors', config: 'config.json',
  });
  match(backend as string, 'wasm');
  equal(notes, []);
  is(next, "For vLLM, put scales.safetensors and config.json into the model's folder, and serve that folder with --kv-cache-dtype fp8 and with FlashAttention, which takes a scale per head.");
  const options = { observer: 'mse', granularity: 'head', queries: true } as const;
  await assertWritten({ layers }, 'scales.safetensors', options);
  // The folder, with its configuration, is a checkpoint as well.
  const { report } = await assertWritten({ layers }, '.', options);
  is(report.dtypeFrom, 'scales.safetensors: __metadata__');
  const { quantization_config: block, ...rest } = JSON.parse(new TextDecoder().decode(get('config.json')));
  equal(rest, JSON.parse(readFileSync(join(orator, 'config.json'), 'utf8')));
  is(block.kv_cache_scheme.strategy, 'attn_head');
});

test('a scale per layer and side, in words', async () => {
  const result = await run('calibrate', ...source, '--dtype', 'fp8_e5m2', '-o', 'e5m2.safetensors');
  assertDone(result);
  match(result.out, /^model {8}orator\nbackend {6}wasm, .*\ncalibrated {3}with eval\.txt: 700 tokens, 256 at a time, by minmax\nscales {7}for e5m2, per tensor\n\nlayer {2}.*K scale .*V scale\n/);
  match(result.out, /^3 {6}█{8} +[\d.e-]+ {2}[▏▎▍▌▋▊▉█]+ +[\d.e-]+$/m);
  match(result.out, /\ne5m2\.safetensors: written, and read back to the same bits\nvLLM has no words for e5m2 in a checkpoint: e5m2\.safetensors is for readScales of this package\.\n$/);
  const expected = await expectedScales({ dtype: 'e5m2' });
  await assertWritten({ layers: expected.layers.map(({ scale }) => ({ k: [...scale.k], v: [...scale.v] })) }, 'e5m2.safetensors', { dtype: 'e5m2' });
});

test('smaller batches give other averages', async () => {
  const result = await run('calibrate', ...source, '--observer', 'minmax', '--batch', '300', '-o', 'batches.safetensors', '--json');
  assertDone(result);
  const printed = JSON.parse(result.out) as Printed;
  await assertWritten(printed, 'batches.safetensors', { observer: 'minmax' }, 300);
  ok(printed.layers.some(({ k }, layer) => k[0] !== whole.layers[layer].scale.k[0]));
});

test('channels of int8 are read back, too', async () => {
  const result = await run('calibrate', ...source, '--dtype', 'int8', '--granularity', 'channel', '--observer', 'static-minmax', '-o', 'channels.safetensors', '--json');
  assertDone(result);
  const printed = JSON.parse(result.out) as Printed;
  is(printed.next, 'vLLM has no cache of int8 with such scales: channels.safetensors is for readScales of this package.');
  await assertWritten(printed, 'channels.safetensors', { dtype: 'int8', granularity: 'channel', observer: 'static-minmax' });
});

test('a model with an index gets a copy of it that names the file of scales', async () => {
  const model = join(folder, 'indexed');
  mkdirSync(model);
  for (const file of ['config.json', 'model.safetensors', 'tokenizer.json']) copyFileSync(join(orator, file), join(model, file));
  const index = { metadata: { total_size: 1 }, weight_map: { 'model.embed_tokens.weight': 'model.safetensors' } };
  writeFileSync(join(model, 'model.safetensors.index.json'), JSON.stringify(index));
  const args = ['calibrate', '--model', model, '--text', text, '--limit', '300'];
  const without = await run(...args, '-o', 'tensor.safetensors');
  assertDone(without);
  match(without.out, /put tensor\.safetensors, what --config FILE writes as config\.json and what --index FILE writes as model\.safetensors\.index\.json into the model's folder, and serve/);
  mkdirSync(join(folder, 'out'));
  const result = await run(...args, '-o', 'out/tensor.safetensors', '--index', 'out/model.safetensors.index.json');
  assertDone(result);
  assertSameBits(get('out/tensor.safetensors'), get('tensor.safetensors'));
  const written = JSON.parse(new TextDecoder().decode(get('out/model.safetensors.index.json')));
  const names = [0, 1, 2, 3].flatMap((layer) => ['k', 'v'].map((side) => `model.layers.${layer}.self_attn.${side}_scale`));
  equal(written, { ...index, weight_map: { ...index.weight_map, ...Object.fromEntries(names.map((name) => [name, 'tensor.safetensors'])) } });
  const inspected = await run('inspect', 'out');
  assertDone(inspected);
  match(inspected.out, /^found {8}8 as llm-compressor names them: model\.layers\.0\.self_attn\.k_scale, …$/m);
  const inPlace = await run(...args, ...['-o', '--config', '--index'].flatMap((option, i) => [option, join(model, ['tensor.safetensors', 'config.json', 'model.safetensors.index.json'][i])]));
  assertDone(inPlace);
  match(inPlace.out, /^For vLLM, serve that folder with --kv-cache-dtype fp8\.$/m);
});

test('Ctrl-C leaves no file', async () => {
  const before = readdirSync(folder);
  const result = await interrupt('calibrate', '--model', orator, '--text', text, '-o', 'never.safetensors', '--config', 'never.json');
  assertFailed(result, 130, /^fp8-kv calibrate: interrupted: nothing was written$/m);
  equal(readdirSync(folder), before);
});

const wrong: readonly (readonly [readonly string[], RegExp])[] = [
  [[], /expected --text FILE/],
  [['--text', text], /expected -o FILE, where to write/],
  [['--text', text, '-o', 'fresh.safetensors'], /expected --model DIR/],
  [['--text', text, '-o', 'fresh.safetensors', '--model', 'nowhere'], /--model expected a folder with config\.json, got nowhere/],
  [[...source, '-o', 'fresh.safetensors', 'more'], /expected options only, got more/],
  [[...source, '-o', 'fresh.npy'], /-o expected a \.safetensors file, got fresh\.npy/],
  [[...source, '-o', 'fresh.safetensors', '--config', text], /--config expected a \.json file, got .*eval\.txt/],
  [[...source, '-o', 'fresh.safetensors', '--index', text], /--index expected a \.json file, got .*eval\.txt/],
  [[...source, '-o', 'nowhere/fresh.safetensors'], /nowhere\/fresh\.safetensors expected a folder that can be written to, got nowhere/],
  [[...source, '-o', join(orator, 'model.safetensors')], /expected files other than the model's weights/],
  [[...source, '-o', 'fresh.safetensors', '--config', 'fresh.json', '--index', './fresh.json'], /expected different files for -o, --config and --index/],
  [[...source, '-o', 'fresh.safetensors', '--index', 'fresh.json'], /--index expected a model that has model\.safetensors\.index\.json/],
  [[...source, '-o', 'fresh.safetensors', '--observer', 'max'], /--observer expected one of memoryless-minmax, static-minmax, minmax, mse, got max/],
  [[...source, '-o', 'fresh.safetensors', '--granularity', 'token-head'], /--granularity expected one of tensor, head, channel, got token-head/],
  [[...source, '-o', 'fresh.safetensors', '--dtype', 'f16'], /"--dtype" expected one of e4m3fn, e5m2, int8, .*, got "f16"/],
  [[...source, '-o', 'fresh.safetensors', '--limit', '0'], /--limit expected a number of at least 1, got 0/],
  [[...source, '-o', 'fresh.safetensors', '--window', '512'], /--window expected at most 256, the model's context, got 512/],
  [[...source, '-o', 'fresh.safetensors', '--dtype', 'e5m2', '--config', 'fresh.json'], /"dtype" expected e4m3fn or int8, got e5m2/],
  [[...source, '-o', 'fresh.safetensors', '--granularity', 'channel', '--config', 'fresh.json'], /"granularity" expected tensor or head, got "channel"/],
  [[...source, '-o', 'fresh.safetensors', '--backend', 'cuda'], /--backend expected wasm or webgpu, got cuda/],
];

test('wrong usage is refused in one line, before anything is calibrated', async () => {
  for (const [args, message] of wrong) {
    const error = await calibrate.run([...args]).then(() => undefined, (reason: unknown) => reason as Error);
    ok(error instanceof UsageError, `${args.join(' ')}: got ${String(error)}`);
    match(error.message, message);
    not.match(error.message, '\n');
  }
  assertFailed(await run('calibrate', ...source, '-o', 'fresh.safetensors', '--observe', 'mse'), 2, /^fp8-kv calibrate: Unknown option '--observe'/);
  ok(!readdirSync(folder).some((name) => name.startsWith('fresh')));
});

test('a text without tokens is an error', async () => {
  put('empty.txt', new Uint8Array(0));
  assertFailed(await run('calibrate', '--model', orator, '--text', 'empty.txt', '-o', 'fresh.safetensors'), 1, /^fp8-kv calibrate: empty\.txt expected text, got none$/m);
});

test('numbers in the JSON of others stay as they were written', () => {
  const json = '{"a": 10000.0, "b": [1e-05, -0, NaN, -Infinity], "c": "1.0 \\" 2.0", "d": {"1": null}, "e": 12345678901234567890}';
  is(editJson(json, 'config.json', (config) => ({ ...config, f: 1 })).replaceAll(/\n */g, ''), '{"a": 10000.0,"b": [1e-05,-0,NaN,-Infinity],"c": "1.0 \\" 2.0","d": {"1": null},"e": 12345678901234567890,"f": 1}');
  for (const wrong of ['[]', '{', '1', 'null']) {
    let message = '';
    try {
      editJson(wrong, 'config.json', (config) => config);
    } catch (error) {
      ({ message } = error as Error);
    }
    match(message, /^config\.json (is not JSON|expected a JSON object)$/);
  }
});
