/** The packed package, installed in an empty project: imported, type-checked, and its command run. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { equal, is, ok } from 'uvu/assert';
import { suite } from './suite.js';

const test = suite('package');
const root = fileURLToPath(new URL('..', import.meta.url));
const project = mkdtempSync(join(tmpdir(), 'fp8-kv-package-'));
const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

function run(command: string, args: string[], cwd = project): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${stdout}${stderr}`);
  return stdout;
}

const installed = join(project, 'node_modules', 'fp8-kv');

test.before(() => {
  run(npm, ['pack', '--silent', '--pack-destination', project], root);
  const tarball = readdirSync(project).find((file) => file.endsWith('.tgz'))!;
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  run(npm, ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', `./${tarball}`]);
});

test.after(() => rmSync(project, { recursive: true, force: true }));

test('holds what it should and nothing else', () => {
  equal(readdirSync(installed).sort(), ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'docs', 'package.json']);
  const { scripts, dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
  for (const hook of ['preinstall', 'install', 'postinstall', 'prepare']) is(scripts[hook], undefined);
  equal(Object.keys(dependencies).sort(), ['@assemblyscript/loader', '@noble/hashes']);
  equal(readdirSync(join(project, 'node_modules')).filter((name) => !name.startsWith('.')).sort(), ['@assemblyscript', '@noble', 'fp8-kv']);
});

test('is imported and computes', () => {
  writeFileSync(
    join(project, 'use.js'),
    `import { openBackend, KvCache, encode } from 'fp8-kv';
     const cache = new KvCache(await openBackend(), { layers: 1, queryHeads: 2, kvHeads: 1, headDim: 8, capacity: 16 });
     const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
     step.append(0, new Float32Array(8).fill(1), new Float32Array(8).fill(2));
     const { out } = await step.attend(0, new Float32Array(16));
     console.log(encode(Float32Array.of(448), 'fp8')[0], out.every((value) => value === 2));`,
  );
  is(run(process.execPath, ['use.js']), '126 true\n');
});

test('is required, where Node requires modules', () => {
  writeFileSync(join(project, 'use.cjs'), "const { encode } = require('fp8-kv'); console.log(encode(Float32Array.of(1), 'e4m3fn')[0]);");
  is(run(process.execPath, ['use.cjs']), '56\n');
});

/** Bytes of a program that imports the package, bundled for browsers and compressed. */
async function bundledBytes(program: string): Promise<number> {
  const { outputFiles } = await build({ stdin: { contents: program, resolveDir: project }, bundle: true, minify: true, format: 'esm', platform: 'browser', write: false });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

test('the codec alone takes less than 25 kB of a page, and everything less than 150 kB', async () => {
  const codec = await bundledBytes("import { encode, decode, quantize } from 'fp8-kv'; console.log(encode, decode, quantize);");
  const everything = await bundledBytes("import * as all from 'fp8-kv'; console.log(all);");
  ok(codec < 25_000, `the codec: ${codec} bytes`);
  ok(everything < 150_000, `everything: ${everything} bytes`);
  // Both are what they are said to be.
  ok(codec > 5_000 && everything > 100_000, `${codec} and ${everything} bytes`);
});

const resolutions = [{ module: 'nodenext' }, { module: 'esnext', moduleResolution: 'bundler' }];

/** Checks a program that imports the package, its declarations too, as Node and as bundlers find them. */
function typeCheck(program: string, lib: readonly string[]): void {
  writeFileSync(join(project, 'use.ts'), program);
  for (const resolution of resolutions) {
    const compilerOptions = { noEmit: true, strict: true, target: 'es2022', ...resolution, lib, types: [] };
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['use.ts'] }));
    run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc')]);
  }
}

test('its types stand on their own, without DOM or Node types', () => {
  typeCheck(
    `import { KvCache, wasmBackend, encode, type AttendResult, type Step } from 'fp8-kv';
     const codes: Uint8Array = encode(new Float32Array(1), 'fp8_e5m2', { saturate: false });
     const cache = new KvCache(wasmBackend(), { layers: [{ windowLeft: 3 }], kvHeads: 1, headDim: 8, capacity: codes.length });
     const step: Step = cache.begin([]);
     const result: AttendResult = step.attendSync(0, new Float32Array(8));
     // @ts-expect-error: not a format
     encode(result.out, 'fp4');`,
    ['es2022'],
  );
});

test('its types are those of WebGPU where TypeScript knows them', () => {
  typeCheck(
    `import { openBackend, pageLayout, requiredLimits, webgpuBackend, type GpuTensor } from 'fp8-kv';
     const adapter = (await navigator.gpu.requestAdapter())!;
     const device = await adapter.requestDevice({ requiredLimits: requiredLimits({ layers: 1, kvHeads: 1, headDim: 8, capacity: 1 }) });
     const backend = await webgpuBackend({ device });
     const queue: GPUQueue = backend.device.queue;
     const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 1 }), 1);
     const key: GpuTensor = { buffer: pages.buffer, offset: 256 };
     backend.recordAppend(device.createCommandEncoder(), { pages, key, value: device.createBuffer({ size: 32, usage: 128 }), slotMapping: Int32Array.of(0) });
     await openBackend({ gpu: navigator.gpu, powerPreference: 'low-power' });
     // @ts-expect-error: not a device
     await webgpuBackend({ device: queue });`,
    ['es2022', 'dom'],
  );
});

test('its command runs', () => {
  const bin = join(project, 'node_modules', '.bin', process.platform === 'win32' ? 'fp8-kv.cmd' : 'fp8-kv');
  ok(existsSync(bin));
  is(JSON.parse(run(bin, ['doctor', '--json'])).ok, true);
});
