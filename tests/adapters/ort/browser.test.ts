/** The real onnxruntime-web, in Chromium, on a GPU that it shares with us. */
import { createServer, type Server } from 'node:http';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { equal, is, ok } from 'uvu/assert';
import { openPage, type Page } from '../../browser/devtools.js';
import { suite } from '../../suite.js';
import { decoder, type DecoderShape } from '../decoder.js';
import { examples, installed, typeCheck } from '../install.js';

const test = suite('onnxruntime-web in a browser');
/** A large module is compiled, on a machine that may have much else to do. */
const PATIENCE = { seconds: 240 };
const shape: DecoderShape = { layers: 1, kvHeads: 2, headDim: 64, vocabulary: 128, type: 'float32' };
const [, example] = examples();

let page: Page;
let server: Server;
let url: string;

async function bundle(entry: string): Promise<Uint8Array> {
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: 'esm', platform: 'browser', target: 'es2022', write: false, logLevel: 'silent' });
  return outputFiles[0].contents;
}

const html = (script: string): string => `<!doctype html><script>globalThis.printed = []; console.log = (...args) => printed.push(args.join(' '));</script><script type="module" src="${script}"></script>`;

test.before(async () => {
  const folder = installed('ort');
  const runtime = join(folder, 'node_modules/onnxruntime-web/dist');
  writeFileSync(join(folder, 'example.mjs'), example);
  const files: { [path: string]: string | Uint8Array } = {
    '/': html('page.js'), '/page.js': await bundle(fileURLToPath(new URL('page.ts', import.meta.url))),
    '/example': html('example.js'), '/example.js': await bundle(join(folder, 'example.mjs')),
    '/model.onnx': decoder(shape),
  };
  server = createServer(({ url: path = '' }, response) => {
    const type = path.endsWith('.wasm') ? 'application/wasm' : path.includes('js') ? 'text/javascript' : 'text/html';
    const file = join(runtime, path);
    const content = files[path] ?? (existsSync(file) ? readFileSync(file) : undefined);
    response.writeHead(content ? 200 : 404, { 'content-type': type }).end(content);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  page = await openPage();
});
test.after(async () => {
  await page?.close();
  server?.close();
  server?.closeAllConnections();
});

test('what sessions leave on the GPU goes into pages step by step, and back, and nothing goes to the host', async () => {
  await page.open(url);
  const { moved, counted, same, sizes, differing, problems, ours } = await page.evaluate<any>(`chat(${JSON.stringify(shape)})`);
  is(moved, 0, 'of ours');
  is(counted, true, 'but what is read back is counted: the logits were');
  equal(same, [true, true, true, true], "the CPU's bytes of the same tokens");
  ok(sizes.some(([size, bytes]: number[]) => size > bytes), 'buffers are larger than their tensors');
  is(differing, 4);
  is(ours, true);
  equal(problems, []);
}, PATIENCE);

test('the example of docs/adapters.md runs', async () => {
  await page.open(`${url}example`);
  const printed = await page.evaluate<string[]>("new Promise((resolve) => { const look = () => (printed.length >= 4 ? resolve(printed) : setTimeout(look, 50)); look(); })");
  equal(printed, ['3 tokens in pages', '4 tokens in pages', '5 tokens in pages', '6 tokens in pages']);
}, PATIENCE);

test('its types fit those of the package', () => {
  typeCheck(installed('ort'), `
    import * as ort from 'onnxruntime-web/webgpu';
    import { pageLayout, webgpuBackend } from 'fp8-kv';
    import { appendPresent, readPast, sharedDeviceDescriptor } from 'fp8-kv/ort';
    const adapter = (await navigator.gpu.requestAdapter())!;
    const device = await adapter.requestDevice(sharedDeviceDescriptor(adapter));
    const session = await ort.InferenceSession.create('model.onnx', { executionProviders: [{ name: 'webgpu', device }] });
    const backend = await webgpuBackend({ device });
    const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 4 }), 1);
    const { key, value } = await readPast(backend, { Tensor: ort.Tensor, pages, slotMapping: Int32Array.of(0) });
    const past: ort.Tensor = key;
    const outputs = await session.run({ past, value });
    await appendPresent(backend, { pages, key: outputs['present.0.key'], value: outputs['present.0.value'], slotMapping: Int32Array.of(0) });
    // @ts-expect-error
    await appendPresent(backend, { pages, key: new Float32Array(8), value, slotMapping: Int32Array.of(0) });
  `);
}, PATIENCE);
