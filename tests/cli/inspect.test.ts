import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { equal, is, match, not, ok } from 'uvu/assert';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { serializeScales, type KvScales } from '../../src/index.js';
import { checkpoint, f32, fp8Scheme, json, model, of, tensorFile } from '../checkpoint/fixtures.js';
import { suite } from '../suite.js';
import { assertDone, assertFailed, commandLine } from './harness.js';

const test = suite('fp8-kv inspect');
const { folder, run, get, put, remove } = commandLine();

/** What a request was answered with: bytes of the body. */
let sent = 0;
let server: Server;
let base: string;

/** The test's folder, with ranges. */
function listen(): Promise<Server> {
  const serve = createServer(({ url, headers }, response) => {
    let bytes: Uint8Array;
    try {
      bytes = get(url!.slice(1));
    } catch {
      response.writeHead(404).end();
      return;
    }
    const [, begin, end] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '')!.map(Number);
    if (begin >= bytes.length) {
      response.writeHead(416).end();
      return;
    }
    const piece = bytes.subarray(begin, end + 1);
    sent += piece.length;
    response.writeHead(206, { 'Content-Range': `bytes ${begin}-${begin + piece.length - 1}/${bytes.length}` }).end(piece);
  });
  return new Promise((resolve) => void serve.listen(0, '127.0.0.1', () => resolve(serve)));
}

function putAll(name: string, files: { readonly [file: string]: Uint8Array }): void {
  mkdirSync(join(folder, name), { recursive: true });
  for (const [file, bytes] of Object.entries(files)) put(join(name, file), bytes);
}

const layer = (index: number, name: string): string => `model.layers.${index}.self_attn.${name}`;

test.before(async () => {
  server = await listen();
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  putAll('whole', checkpoint({
    [layer(0, 'k_scale')]: f32([1], 0.25), [layer(0, 'v_scale')]: f32([1], 0.0025), [layer(1, 'k_scale')]: f32([1], 0.025), [layer(1, 'v_scale')]: f32([1], 0.1),
  }));
  putAll('odd', checkpoint({
    [layer(0, 'k_proj.output_scale')]: f32([], 0.75), [layer(2, 'kv_scale')]: f32([1], 0.5),
    [layer(0, 'key_scale\u001b[2J')]: f32([1], 1), [layer(0, 'attn.key_scale')]: f32([1], 1), [layer(7, 'k_scale')]: f32([1], 1),
  }, { ...model, num_hidden_layers: 4, layer_types: ['full_attention', 'full_attention', 'full_attention', 'linear_attention'], ...fp8Scheme }));
  putAll('ones', checkpoint(Object.fromEntries([0, 1].flatMap((index) => ['k', 'v'].map((side) => [layer(index, `${side}_scale`), f32([1], 1)])))));
  putAll('plain', checkpoint({}, model));
  putAll('nvfp4', checkpoint({}, { ...model, quantization_config: { kv_cache_quant_algo: 'NVFP4' } }));
  putAll('zero', checkpoint({ [layer(0, 'k_scale')]: f32([1], 0) }));
  put('legacy.json', json({ kv_cache: { dtype: 'float8_e4m3fn', scaling_factor: { 0: { 0: 0.0625, 1: 0.125 } } } }));
  put('cut.safetensors', tensorFile({ [layer(0, 'k_scale')]: f32([1], 1) }).subarray(0, 40));
  put('heads.safetensors', serializeScales(heads, { queryHeads: 4 }));
});

test.after(async () => {
  remove();
  server.closeAllConnections();
  await new Promise((resolve) => void server.close(resolve));
});

const heads: KvScales = {
  dtype: 'int8', granularity: 'head',
  layers: [0, 1].map((index) => ({ dtype: 'int8', granularity: 'head', scale: { k: Float32Array.of(1 / 127.5, 0.02 + index), v: Float32Array.of(0.1, 0.1) }, qScale: Float32Array.of(0.3, 2 ** -149) })) as KvScales['layers'],
};

test('a folder: a line per layer, bars of logarithms', async () => {
  const result = await run('inspect', 'whole');
  assertDone(result);
  is(result.out, `checkpoint   whole
read         config.json, model.safetensors
layers       2
dtype        e4m3fn, as "config.json: quantization_config.kv_cache_scheme" says
granularity  tensor
found        4 as llm-compressor names them: model.layers.0.self_attn.k_scale, …

layer            K scale            V scale
0      ████████     0.25  ▏          0.0025
1      ████        0.025  ██████▍       0.1
A bar is as long as the logarithm of a side's largest scale, from 0.0025 to 0.25.
`);
});

test('all that is missing, unmatched or odd is said once', async () => {
  const result = await run('inspect', 'odd');
  assertDone(result);
  match(result.out, /^found {8}1 as Quark, compressed-tensors names them: model\.layers\.0\.self_attn\.k_proj\.output_scale\n {13}1 as AutoFP8, Quark names them: model\.layers\.2\.self_attn\.kv_scale$/m);
  match(result.out, /^0 +█{8} +0\.75 +as K$/m);
  match(result.out, /^1 +1, missing +1, missing$/m);
  match(result.out, /^2 +█+[▏▎▍▌▋▊▉]? +0\.5 +█+[▏▎▍▌▋▊▉]? +0\.5$/m);
  match(result.out, /^3 +no cache +no cache$/m);
  for (const said of [/2 tensors look like scales of the KV cache and are not used: .*attn\.key_scale \(a name of no known form\).*layers\.7\.self_attn\.k_scale \(the model has 4 layers\)/, /no scale for layer and side 1\.k, 1\.v: 1 is taken/, /no scale for layer and side 0\.v: that of the other side/, /scales over 0\.5 for layer and side 0\.k/, /measured before rotary position embedding/]) {
    is(result.out.split('\n').filter((line) => line.startsWith('note: ') && said.test(line)).length, 1, String(said));
  }
  is(result.out.match(/^note: /gm)!.length, 5);
  not.match(result.out, '\u001b');
});

test('scales that are all 1', async () => {
  const result = await run('inspect', 'ones');
  assertDone(result);
  match(result.out, /^note: all scales are exactly 1: most likely none was measured \(ModelOpt recommends 1 for FP8\)\n$/m);
});

test('a checkpoint without scales, and a file of the JSON form', async () => {
  const plain = await run('inspect', 'plain');
  assertDone(plain);
  match(plain.out, /^layers {7}2\ndtype {8}as the model has them: nothing says that they are quantized\nfound {8}no scale\n$/m);
  const legacy = await run('inspect', 'legacy.json');
  assertDone(legacy);
  match(legacy.out, /^dtype {8}e4m3fn, as "legacy\.json: kv_cache\.dtype" says$/m);
  match(legacy.out, /^found {8}2 as vLLM, SGLang \(JSON\) names them: kv_cache\.scaling_factor\.0\.0, …$/m);
});

test('--json: all scales, the report, the notes', async () => {
  const result = await run('inspect', 'odd', '--json');
  assertDone(result);
  const { dtype, granularity, beforeRope, layers, report, notes } = JSON.parse(result.out);
  equal([dtype, granularity, beforeRope], ['e4m3fn', 'tensor', true]);
  equal(layers, [{ k: [0.75], v: [0.75] }, { k: [1], v: [1] }, { k: [0.5], v: [0.5] }, { k: [1], v: [1] }]);
  equal(report.missing, [{ layer: 1, side: 'k' }, { layer: 1, side: 'v' }]);
  equal(report.unmatched.map(({ why }: { why: string }) => why), ['a name of no known form', 'the model has 4 layers']);
  is(notes.length, 5);
  const plain = JSON.parse((await run('inspect', 'plain', '--json')).out);
  equal([plain.dtype, plain.layers, plain.notes], ['auto', 2, []]);
});

test('scales of heads and of queries, with the bits that were written', async () => {
  const read = JSON.parse((await run('inspect', 'heads.safetensors', '--json')).out);
  equal([read.dtype, read.granularity], ['int8', 'head']);
  equal(read.layers, heads.layers.map(({ scale: { k, v }, qScale }) => ({ k: [...k], v: [...v], q: [...qScale!] })));
});

test('over HTTP: a folder and a file, and of the weights nothing', async () => {
  putAll('large', checkpoint({ ...Object.fromEntries([0, 1].flatMap((index) => ['k', 'v'].map((side) => [layer(index, `${side}_scale`), f32([1], 0.1)]))), 'lm_head.weight': of('F32', [250_000], new Float32Array(250_000)) }));
  for (const [place, local] of [['large', 'large'], ['heads.safetensors', 'heads.safetensors'], ['legacy.json', 'legacy.json']]) {
    sent = 0;
    const [there, here] = await Promise.all([run('inspect', `${base}/${place}`, '--json'), run('inspect', local, '--json')]);
    assertDone(there);
    const { report, ...rest } = JSON.parse(there.out);
    const { report: localReport, ...localRest } = JSON.parse(here.out);
    equal(rest, localRest);
    equal(report.found, localReport.found);
    match(report.source, base);
    ok(sent > 0 && sent < 20_000, `${sent} bytes`);
  }
});

test('what is refused or cannot be read: one line, exit code 1', async () => {
  assertFailed(await run('inspect', 'nvfp4'), 1, /^fp8-kv inspect: "config\.json: quantization_config\.kv_cache_quant_algo" expected a cache of 8 bits \(/);
  assertFailed(await run('inspect', 'zero'), 1, /^fp8-kv inspect: "model\.safetensors: model\.layers\.0\.self_attn\.k_scale" expected a finite scale greater than 0, got number 0$/m);
  assertFailed(await run('inspect', 'nowhere'), 1, /^fp8-kv inspect: nowhere: there is nothing at this path$/m);
  assertFailed(await run('inspect', 'cut.safetensors'), 1, /^fp8-kv inspect: cut\.safetensors, byte 0: the header claims/);
  assertFailed(await run('inspect', `${base}/nowhere`), 1, /^fp8-kv inspect: http:\/\/127\.0\.0\.1:\d+\/nowhere\/: there is no checkpoint/);
  assertFailed(await run('inspect', `${base}/nowhere.safetensors`), 1, /there is no such file$/m);
});

test('wrong usage: one line, exit code 2', async () => {
  assertFailed(await run('inspect'), 2, /^fp8-kv inspect: expected one path or URL, got 0$/m);
  assertFailed(await run('inspect', 'whole', 'odd'), 2, /^fp8-kv inspect: expected one path or URL, got 2$/m);
  assertFailed(await run('inspect', '--yaml', 'whole'), 2, /^fp8-kv inspect: Unknown option '--yaml'/);
});
