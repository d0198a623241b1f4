/** The declarations of the packed package, as Node and as bundlers find them, beside whatever else knows WebGPU's names. */
import { join } from 'node:path';
import { is } from 'uvu/assert';
import { suite } from '../suite.js';
import { entries, project, root, type Project } from './project.js';

const test = suite('package: types');
let packed: Project;
test.before(async () => {
  packed = await project();
});

/** A compiler takes seconds, and many where it has to wait for its turn. */
const PATIENCE = { seconds: 300 };

const resolutions = [{ module: 'nodenext' }, { module: 'esnext', moduleResolution: 'bundler' }];

/** Checks files, and all declarations that they lead to, under both resolutions. TypeScript's own are taken as right. */
async function typeCheck(files: { readonly [name: string]: string }, options: { readonly lib: readonly string[]; readonly types?: readonly string[] }): Promise<void> {
  const types = (options.types ?? []).map((name) => join(root, 'node_modules', name));
  for (const [name, text] of Object.entries(files)) packed.write(name, text);
  await Promise.all(
    resolutions.map(({ module, ...resolution }) => {
      const compilerOptions = { noEmit: true, strict: true, skipDefaultLibCheck: true, target: 'es2022', module, ...resolution, ...options, types };
      packed.write(`tsconfig.${module}.json`, JSON.stringify({ compilerOptions, files: Object.keys(files) }));
      return packed.run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', `tsconfig.${module}.json`]);
    }),
  );
}

/** Imports every entry. */
const all = entries.map((entry, i) => `import * as entry${i} from '${entry}';`).join('\n') + `\nexport const names: string[] = [${entries.map((_, i) => `...Object.keys(entry${i})`).join(', ')}];\n`;

const cpu = `import { KvCache, wasmBackend, encode, type AttendResult, type Step } from 'fp8-kv';
  import { checkCodes, type CodeCheck } from 'fp8-kv/oracle';
  const codes: Uint8Array = encode(new Float32Array(1), 'fp8_e5m2', { saturate: false });
  const cache = new KvCache(wasmBackend(), { layers: [{ windowLeft: 3 }], kvHeads: 1, headDim: 8, capacity: codes.length });
  const step: Step = cache.begin([]);
  const result: AttendResult = step.attendSync(0, new Float32Array(8));
  const { equal }: CodeCheck = checkCodes({ input: result.out, shape: [8], codes });
  const surely: boolean = equal;
  // @ts-expect-error: not a format
  encode(result.out, 'fp4', surely);`;

const gpu = `import { openBackend, pageLayout, requiredLimits, webgpuBackend, type GpuTensor } from 'fp8-kv';
  declare const gpu: GPU;
  const adapter = (await gpu.requestAdapter())!;
  const device = await adapter.requestDevice({ requiredLimits: requiredLimits({ layers: 1, kvHeads: 1, headDim: 8, capacity: 1 }) });
  const backend = await webgpuBackend({ device });
  const queue: GPUQueue = backend.device.queue;
  const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 1 }), 1);
  const key: GpuTensor = { buffer: pages.buffer, offset: 256 };
  backend.recordAppend(device.createCommandEncoder(), { pages, key, value: device.createBuffer({ size: 32, usage: 128 }), slotMapping: Int32Array.of(0) });
  await openBackend({ gpu, powerPreference: 'low-power' });
  // @ts-expect-error: not a device
  await webgpuBackend({ device: queue });`;

test('stand on their own, without DOM or Node types', () => typeCheck({ 'all.ts': all, 'cpu.ts': cpu }, { lib: ['es2022'] }), PATIENCE);

test('are those of WebGPU in the DOM of TypeScript', () => typeCheck({ 'all.ts': all, 'cpu.ts': cpu, 'gpu.ts': gpu }, { lib: ['es2022', 'dom'] }), PATIENCE);

test('are those of @types/web', () => typeCheck({ 'all.ts': all, 'cpu.ts': cpu, 'gpu.ts': gpu }, { lib: ['es2022'], types: ['@types/web'] }), PATIENCE);

test('go together with those of Node', () => typeCheck({ 'all.ts': all, 'cpu.ts': cpu }, { lib: ['es2022'], types: ['@types/node'] }), PATIENCE);

test('are found by programs in CommonJS', () => typeCheck({ 'required.cts': `import { encode } from 'fp8-kv';\nexport const codes: Uint8Array = encode(new Float32Array(1), 'fp8');\n` }, { lib: ['es2022'] }), PATIENCE);

test('are missed where they are missing', async () => {
  const error = await typeCheck({ 'wrong.ts': "import { nothing } from 'fp8-kv/oracle'; console.log(nothing);" }, { lib: ['es2022', 'dom'] }).catch(({ message }: Error) => message);
  is(/TS2305: Module '"fp8-kv\/oracle"' has no exported member 'nothing'/.test(error ?? ''), true, error ?? 'no error');
}, PATIENCE);
