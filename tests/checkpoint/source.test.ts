import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as assert from 'uvu/assert';
import { readScales, type CheckpointSource } from '../../src/index.js';
import { suite } from '../suite.js';
import { assertRefused, checkpoint, f32, fp8Scheme, json, model, numbers, of, readTold, tensorFile } from './fixtures.js';

const test = suite('checkpoint/source');

const scaleOf = (n: number, value: number) => ({ [`model.layers.${n}.self_attn.attn.kv_scale`]: f32([1], value) });

/** Two shards with weights of 100 kB between the scales, one without a scale, and their index. */
const weights = (name: string) => ({ [name]: of('BF16', [50_000], new Uint16Array(50_000)) });
const shards = {
  'model-1.safetensors': tensorFile({ ...scaleOf(0, 0.25), ...weights('model.layers.0.self_attn.k_proj.weight') }),
  'model-2.safetensors': tensorFile({ ...scaleOf(1, 0.5), ...weights('model.layers.1.self_attn.k_proj.weight') }),
  'model-3.safetensors': tensorFile(weights('lm_head.weight')),
};
const weightMap = {
  'model.layers.0.self_attn.attn.kv_scale': 'model-1.safetensors',
  'model.layers.0.self_attn.k_proj.weight': 'model-1.safetensors',
  'model.layers.1.self_attn.attn.kv_scale': 'model-2.safetensors',
  'lm_head.weight': 'model-3.safetensors',
};
const index = (map: object) => json({ metadata: { total_size: 300_000 }, weight_map: map });
const sharded = { 'config.json': json({ ...model, ...fp8Scheme }), 'model.safetensors.index.json': index(weightMap), ...shards };
const expected = [[[0.25], [0.25]], [[0.5], [0.5]]];

/** A place that writes down what is asked of it. */
function counted(files: { readonly [name: string]: Uint8Array }, listed = true): CheckpointSource & { readonly asked: (readonly [string, number, number])[] } {
  const asked: [string, number, number][] = [];
  const read = async (file: string, begin: number, end: number): Promise<Uint8Array | undefined> => {
    if (!Object.hasOwn(files, file)) return undefined;
    const bytes = files[file].subarray(begin, end);
    asked.push([file, begin, begin + bytes.length]);
    return bytes;
  };
  return { name: 'counted', asked, read, ...(listed && { list: async () => Object.keys(files) }) };
}

test('files by name: a record, a map, Blobs', async () => {
  for (const files of [sharded, new Map(Object.entries(sharded)), Object.fromEntries(Object.entries(sharded).map(([name, bytes]) => [name, new Blob([bytes as Uint8Array<ArrayBuffer>])]))]) {
    const { scales, warnings } = await readTold(files);
    assert.equal(numbers(scales), expected);
    assert.equal(scales.report.files, ['config.json', 'model-1.safetensors', 'model-2.safetensors']);
    assert.equal(warnings, []);
  }
});

test('of the weights nothing is read, and of shards without scales nothing at all', async () => {
  const place = counted(sharded);
  await readScales(place);
  const ofShards = place.asked.filter(([file]) => file.endsWith('.safetensors'));
  assert.equal([...new Set(ofShards.map(([file]) => file))].sort(), ['model-1.safetensors', 'model-2.safetensors']);
  assert.is(ofShards.length, 6, 'length, header and scales of each');
  for (const file of ['model-1.safetensors', 'model-2.safetensors'] as const) {
    const header = Number(new DataView(shards[file].buffer).getBigUint64(0, true));
    const ranges = ofShards.filter(([name]) => name === file).map(([, begin, end]) => [begin, end]);
    assert.equal(ranges, [[0, 8], [8, 8 + header], [8 + header, 8 + header + 4]]);
  }
});

test('neighbours are read at once, and what lies apart is not', async () => {
  const tensors = Object.fromEntries([0, 1, 2].flatMap((n) => [[`model.layers.${n}.self_attn.attn.kv_scale`, f32([1], 0.25)], [`model.layers.${n}.self_attn.aaa`, of('F32', [n === 1 ? 5000 : 100], new Float32Array(n === 1 ? 5000 : 100))]]));
  const place = counted({ 'model.safetensors': tensorFile(tensors) });
  const scales = await readScales(place);
  assert.is(scales.layers.length, 3);
  const data = place.asked.slice(2).map(([, begin, end]) => end - begin);
  assert.equal(data.sort((a, b) => a - b), [4, 408]);
});

test('without an index: all the files there are, or those of known names', async () => {
  const { 'model.safetensors.index.json': _, ...rest } = sharded;
  assert.equal(numbers((await readTold(rest)).scales), expected);
  const single = { 'config.json': sharded['config.json'], 'model.safetensors': tensorFile({ ...scaleOf(0, 0.25), ...scaleOf(1, 0.5) }) };
  assert.equal(numbers((await readTold(counted(single, false))).scales), expected);
  const mistral = { 'params.json': json({ n_layers: 2, n_heads: 4, n_kv_heads: 2, head_dim: 8, dim: 32 }), 'consolidated.safetensors': single['model.safetensors'] };
  assert.equal(numbers((await readTold(counted(mistral, false))).scales), expected);
  const ranks = { 'config.json': sharded['config.json'], 'rank0.safetensors': tensorFile(scaleOf(0, 0.25)), 'rank1.safetensors': tensorFile(scaleOf(1, 0.5)) };
  assert.equal(numbers((await readTold(counted(ranks, false))).scales), expected);
});

test('a file of scales beside the shards, which their index does not know, is read', async () => {
  const own = tensorFile({ ...scaleOf(0, 0.125), ...scaleOf(1, 0.375) }, { fp8_kv_scales: '1', dtype: 'e5m2', granularity: 'tensor' });
  const plain = { 'config.json': sharded['config.json'], 'model-3.safetensors': shards['model-3.safetensors'], 'model.safetensors.index.json': index({ 'lm_head.weight': 'model-3.safetensors' }) };
  const { scales } = await readTold({ ...plain, 'scales.safetensors': own });
  assert.is(scales.dtype, 'e5m2');
  assert.equal(numbers(scales), [[[0.125], [0.125]], [[0.375], [0.375]]]);
  await assertRefused({ ...sharded, 'scales.safetensors': own }, /scales\.safetensors: .*" expected the scales of "model-1\.safetensors/, RangeError);
});

test('an index that leads astray is refused', async () => {
  const scale = 'model.layers.0.self_attn.attn.kv_scale';
  for (const name of ['../model.safetensors', '/etc/passwd', 'a\\b', 'http://evil/x', '..', '.', '', 7]) {
    await assertRefused({ ...sharded, 'model.safetensors.index.json': index({ [scale]: name }) }, /weight_map" expected names of files beside it/, RangeError);
  }
  await assertRefused({ ...sharded, 'model.safetensors.index.json': index({ [scale]: 'model-9.safetensors' }) }, /"model-9\.safetensors" is missing, in which model\.safetensors\.index\.json has "model\.layers/);
  await assertRefused({ ...sharded, 'model.safetensors.index.json': index({ [scale]: 'model-2.safetensors' }) }, /"model-2\.safetensors" lacks "model\.layers\.0/);
  await assertRefused({ ...sharded, 'model.safetensors.index.json': json({ weight_map: [] }) }, /weight_map" expected an object, got a list of 0/, RangeError);
  await assertRefused({}, /the files: there is no checkpoint/);
});

test('a single file: bytes, a Blob, a File', async () => {
  const bytes = tensorFile({ ...scaleOf(0, 0.25), ...scaleOf(1, 0.5) });
  for (const file of [bytes, Buffer.from(bytes), new Blob([bytes as Uint8Array<ArrayBuffer>]), new File([bytes as Uint8Array<ArrayBuffer>], 'scales.safetensors')]) {
    const { scales } = await readTold(file);
    assert.equal(numbers(scales), expected);
    assert.is(scales.report.found[0].file, file instanceof File ? 'scales.safetensors' : 'the file');
  }
});

test('a folder and a file by their paths', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'fp8-kv-'));
  try {
    for (const [name, bytes] of Object.entries(sharded)) await writeFile(join(folder, name), bytes);
    const file = join(folder, 'model-1.safetensors');
    for (const place of [folder, pathToFileURL(folder)]) assert.equal(numbers((await readTold(place)).scales), expected);
    for (const place of [file, pathToFileURL(file)]) assert.equal(numbers((await readTold(place)).scales), expected.slice(0, 1));
    await assertRefused(join(folder, 'nothing'), /nothing: there is nothing at this path$/);
    await assertRefused('some.org/Model-8B', /^some\.org\/Model-8B: there is nothing at this path; .* by its URL, https:\/\/huggingface\.co\/some\.org\/Model-8B$/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

for (const [value, got] of [[undefined, 'undefined'], [null, 'null'], [7, 'number 7'], [new ArrayBuffer(8), 'ArrayBuffer']] as const) {
  test(`${got} is no place`, () => assertRefused(value as unknown as string, new RegExp(`"source" expected a path, a URL, .* got ${got}`), TypeError));
}

test('what is no file among files is refused by name', () => assertRefused({ 'config.json': '{}' as unknown as Uint8Array }, /expected a Blob or a Uint8Array for "config\.json", got "\{\}"/, TypeError));

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Bytes that the server sent, and what was asked. */
interface Served {
  readonly url: string;
  readonly ranges: (string | undefined)[];
}

async function serve(answer: Answer, use: (served: Served) => Promise<void>): Promise<void> {
  const ranges: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    ranges.push(request.headers.range);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await use({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, ranges });
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Serves files under /repo/, with or without ranges. */
const files = (all: { readonly [name: string]: Uint8Array }, mode: 'ranges' | 'whole' | 'hidden'): Answer => ({ url, headers: { range } }, response) => {
  const path = new URL(url!, 'http://host').pathname;
  const bytes = Object.entries(all).find(([name]) => path === `/repo/${name}`)?.[1];
  if (bytes === undefined) return void response.writeHead(404).end('not here');
  const asked = /^bytes=(\d+)-(\d+)$/.exec(range ?? '');
  if (mode === 'whole' || !asked) return void response.writeHead(200).end(bytes);
  const [begin, end] = [Number(asked[1]), Math.min(Number(asked[2]) + 1, bytes.length)];
  if (begin >= bytes.length) return void response.writeHead(416).end();
  response.writeHead(206, mode === 'ranges' ? { 'Content-Range': `bytes ${begin}-${end - 1}/${bytes.length}` } : {}).end(bytes.subarray(begin, end));
};

for (const mode of ['ranges', 'whole', 'hidden'] as const) {
  test(`a server, ${{ ranges: 'of ranges', whole: 'that ignores ranges', hidden: 'that does not say which range it sends' }[mode]}`, () =>
    serve(files(sharded, mode), async ({ url, ranges }) => {
      for (const place of [`${url}/repo`, new URL(`${url}/repo/`), `${url}/repo?token=1#part`]) {
        const { scales, warnings } = await readTold(place);
        assert.equal(numbers(scales), expected);
        // Once, however many pieces.
        const { source } = scales.report;
        assert.equal(warnings, mode === 'whole' ? [`${source}: the server does not send pieces of files: what lies before a scale has to be sent, too`] : []);
      }
      assert.ok(ranges.every((range) => range?.startsWith('bytes=')));
      const { scales } = await readTold(`${url}/repo/model-2.safetensors?download=true`);
      assert.is(scales.report.found[0].file, 'model-2.safetensors');
      assert.equal(numbers(scales), [[[1], [1]], [[0.5], [0.5]]]);
    }));
}

test('a signal ends what a server is asked for, also while it is silent', async () => {
  const gone = new AbortController();
  gone.abort(new Error('not needed any more'));
  const thrownBy = (place: string, { signal }: AbortController): Promise<string> => readScales(place, { signal }).then(() => 'nothing', (error: Error) => error.message);
  assert.is(await thrownBy('http://127.0.0.1:9/repo', gone), 'not needed any more');
  for (const begun of [false, true]) {
    const controller = new AbortController();
    const silent: Answer = (_, response) => {
      // The headers, and the first bytes, or nothing at all.
      if (begun) response.writeHead(206, { 'Content-Range': 'bytes 0-99/100' }).write('{');
      setTimeout(() => controller.abort(new Error('enough')), 20);
    };
    await serve(silent, async ({ url }) => assert.is(await thrownBy(`${url}/repo`, controller), 'enough'));
  }
});

test('ranks come to an end', async () => {
  const rank = tensorFile(scaleOf(0, 0.25));
  const read = async (file: string, begin: number, end: number) => (file.startsWith('rank') ? rank.subarray(begin, end) : undefined);
  await assertRefused({ name: 'endless', read }, /endless: there are over 1024 files of ranks/);
});

test('a page in place of a file is no file', () =>
  serve((request, response) => {
    if (request.url === '/repo/model.safetensors') files({ 'model.safetensors': tensorFile(scaleOf(0, 0.25)) }, 'ranges')(request, response);
    else response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end('<!doctype html>');
  }, async ({ url }) => {
    assert.equal(numbers((await readTold(`${url}/repo`)).scales), expected.slice(0, 1));
  }));

test('what a server does wrong is said with URL and status', async () => {
  await serve((_, response) => void response.writeHead(403).end(), ({ url }) => assertRefused(`${url}/repo`, new RegExp(`^${url}/repo/[\\w.]+: the server answered 403 Forbidden$`)));
  await serve((_, response) => void response.writeHead(206, { 'Content-Range': 'bytes 100-200/300' }).end('x'), ({ url }) => assertRefused(`${url}/a.safetensors`, /a\.safetensors: expected the bytes from 0 on, got "bytes 100-200\/300"/));
  await serve((_, response) => void response.writeHead(200, { 'Content-Length': '100' }).write('x', () => response.destroy()), ({ url }) => assertRefused(`${url}/a.safetensors`, /a\.safetensors: what the server sends broke off/));
  for (const status of [404, 410]) await serve((_, response) => void response.writeHead(status).end(), ({ url }) => assertRefused(`${url}/a.safetensors`, /a\.safetensors: there is no such file/));
  await serve((_, response) => void response.writeHead(404).end(), ({ url }) => assertRefused(`${url}/repo`, /repo\/: there is no checkpoint/));
  await serve((_, response) => void response.writeHead(404).end(), ({ url }) => assertRefused(`${url}/%zz.safetensors`, /%zz\.safetensors: there is no such file/));
  await assertRefused('http://127.0.0.1:1/repo', /^http:\/\/127\.0\.0\.1:1\/repo\/[\w.]+: the server was not reached/);
});

test('of a repository of Hugging Face its files are read', async () => {
  const { fetch } = globalThis;
  const urls: string[] = [];
  globalThis.fetch = async (url) => {
    urls.push(String(url));
    return new Response(null, { status: 404 });
  };
  try {
    for (const place of ['org/name', 'org/name/', 'org/name/tree/v1', 'org/name/resolve/main']) await assertRefused(`https://huggingface.co/${place}`, /there is no checkpoint/);
    await assertRefused('https://hf.co/org/name', /org\/name\/resolve\/main\/: there is no checkpoint/);
    for (const way of ['blob', 'resolve']) await assertRefused(`https://huggingface.co/org/name/${way}/main/model.safetensors`, /org\/name\/resolve\/main\/model\.safetensors: there is no such file/);
  } finally {
    globalThis.fetch = fetch;
  }
  const main = 'https://huggingface.co/org/name/resolve/main/config.json';
  assert.equal(urls.filter((url) => url.startsWith('https://huggingface.co/') && url.endsWith('/config.json')), [main, main, main.replace('main', 'v1'), main]);
});

test('a whole checkpoint comes as plain data', async () => {
  const { scales } = await readTold(checkpoint({ ...scaleOf(0, 0.25), ...scaleOf(1, 0.75) }));
  assert.equal(JSON.parse(JSON.stringify(scales.report)), {
    source: 'the files',
    files: ['config.json', 'model.safetensors'],
    dtypeFrom: 'config.json: quantization_config.kv_cache_scheme',
    stated: 'tensor',
    found: [0, 1].map((n) => ({ tensor: `model.layers.${n}.self_attn.attn.kv_scale`, file: 'model.safetensors', layer: n, side: 'kv', system: 'vLLM', shape: [1], smallest: n ? 0.75 : 0.25, largest: n ? 0.75 : 0.25 })),
    unmatched: [],
    missing: [],
    duplicated: [],
    large: [{ layer: 1, side: 'k', largest: 0.75 }, { layer: 1, side: 'v', largest: 0.75 }],
    allOne: false,
  });
});
