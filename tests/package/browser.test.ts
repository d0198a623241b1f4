/** The packed package on pages that bundlers made of it, where a page has much, and where it has little. */
import { equal, is, match, ok } from 'uvu/assert';
import { openPage, type Page } from '../browser/devtools.js';
import { suite } from '../suite.js';
import type { Findings } from './program.js';
import { entries, project } from './project.js';
import { bundlers, INSECURE_HOST, writeSources, type Site } from './sites.js';

/** Where there is no compiling ahead, a page and its kernels take their time. */
const PATIENCE = { seconds: 300 };

const isolation = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

/** A policy that allows nothing but what stands in it. `connect-src` is for Vite's client. */
const policy = (...directives: string[]): Record<string, string> => ({ 'content-security-policy': ["default-src 'none'", "connect-src 'self'", ...directives].join('; ') });
const strictPolicy = policy("script-src 'self' 'wasm-unsafe-eval'", 'worker-src blob:', "require-trusted-types-for 'script'", 'trusted-types fp8-kv');

const wasm = (threads: number): string => `consumer.compute({ wasm: { simd: 'baseline', threads: ${threads} } })`;
const opened = (options: object): string => `consumer.compute(${JSON.stringify(options)})`;
/** The message of what an expression throws. */
const failure = (expression: string): string => `(async () => ${expression})().then(() => 'nothing', (error) => error.message + (error.cause ? ': ' + error.cause.message : ''))`;

const setting: { page?: Page; node?: { readonly findings: Findings; readonly names: { readonly [entry: string]: readonly string[] } } } = {};

/** What Node has to say: the same kernels, without a page. */
async function inNode(): Promise<NonNullable<typeof setting.node>> {
  const packed = await project();
  const program = `import { compute } from './program.js';
    const names = Object.fromEntries(await Promise.all(${JSON.stringify(entries)}.map(async (entry) => [entry, Object.keys(await import(entry)).sort()])));
    console.log(JSON.stringify({ findings: await compute({ wasm: { simd: 'baseline' } }), names }));`;
  return JSON.parse(await packed.run(process.execPath, ['--input-type=module', '-e', program]));
}

/** Bytes are Node's; so are the bits of attention where it is the same build, and elsewhere its values are. */
function assertAsInNode(found: Findings, sameBits: boolean): void {
  const { findings } = setting.node!;
  equal([found.codes, found.cache, found.equal], [findings.codes, findings.cache, true]);
  if (sameBits) is(found.outBits, findings.outBits);
  const largest = Math.max(...findings.out.map(Math.abs));
  const off = Math.max(...found.out.map((value, i) => Math.abs(value - findings.out[i])));
  ok(off <= 1e-4 * largest && largest > 0, `attention is off by ${off} of ${largest}`);
}

for (const [name, bundle] of Object.entries(bundlers)) {
  const test = suite(`package: by ${name} for a page`);
  let site: Site;

  test.before(async () => {
    setting.page ??= await openPage([`--host-resolver-rules=MAP ${INSECURE_HOST} 127.0.0.1`]);
    setting.node ??= await inNode();
    const packed = await project();
    writeSources(packed);
    site = await bundle(packed);
  });
  test.after(async () => {
    await site.close();
  });

  /** Opens the page with these headers. */
  async function open(headers: Readonly<Record<string, string>>, host = '127.0.0.1'): Promise<Page> {
    const page = setting.page!;
    page.problems.length = 0;
    site.headers = headers;
    await page.open(`http://${host}:${site.port}/`);
    return page;
  }

  test('with WebGPU, not isolated', async () => {
    const page = await open({});
    equal(await page.evaluate('consumer.names'), setting.node!.names);
    const gpu = await page.evaluate<Findings>(opened({ prefer: 'webgpu', gpuTimeLimit: 250_000 }));
    is(gpu.choice!.backend, 'webgpu', gpu.choice!.reason);
    assertAsInNode(gpu, false);
    const cpu = await page.evaluate<Findings>(opened({ prefer: 'wasm', threads: 3 }));
    equal([cpu.choice!.backend, cpu.threads], ['wasm', 1]);
    assertAsInNode(cpu, false);
    match(await page.evaluate<string>(failure('consumer.wasmBackend({ threads: 3 })')), /"threads" expected 1, because .*cross-origin isolated/);
    equal(page.problems, []);
  }, PATIENCE);

  for (const [where, headers] of Object.entries({ isolated: isolation, 'isolated, under a strict policy': { ...isolation, ...strictPolicy } })) {
    test(`${where}: with threads`, async () => {
      const page = await open(headers);
      const cpu = await page.evaluate<Findings>(opened({ prefer: 'wasm', threads: 3 }));
      equal([cpu.choice!.backend, cpu.threads], ['wasm', 3]);
      assertAsInNode(cpu, false);
      assertAsInNode(await page.evaluate(wasm(3)), true);
      equal(page.problems, []);
    }, PATIENCE);
  }

  test('under a strict policy, with WebGPU', async () => {
    const page = await open(strictPolicy);
    const gpu = await page.evaluate<Findings>(opened({ prefer: 'webgpu', gpuTimeLimit: 250_000 }));
    is(gpu.choice!.backend, 'webgpu', gpu.choice!.reason);
    assertAsInNode(gpu, false);
    equal(page.problems, []);
  }, PATIENCE);

  test('without WebGPU: from another machine without TLS', async () => {
    const page = await open({}, INSECURE_HOST);
    equal(await page.evaluate('[isSecureContext, typeof navigator.gpu, typeof SharedArrayBuffer]'), [false, 'undefined', 'undefined']);
    const cpu = await page.evaluate<Findings>(opened({ prefer: 'webgpu', threads: 3 }));
    equal([cpu.choice, cpu.threads], [{ backend: 'wasm', reason: 'this browser, or this page, has no WebGPU' }, 1]);
    assertAsInNode(cpu, false);
    assertAsInNode(await page.evaluate(wasm(1)), true);
    equal(page.problems, []);
  }, PATIENCE);

  test('where a policy forbids what is needed, the error says what', async () => {
    const page = await open({ ...isolation, ...policy("script-src 'self'", 'worker-src blob:') });
    for (const expression of [opened({}), wasm(1), wasm(2)]) match(await page.evaluate<string>(failure(expression)), /wasm-unsafe-eval/);
    // As if the engine were an old one.
    match(await page.evaluate<string>(`WebAssembly.validate = () => false, ${failure(wasm(1))}`), /this engine has no SIMD in WebAssembly/);
    await open({ ...isolation, ...policy("script-src 'self' 'wasm-unsafe-eval'") });
    match(await page.evaluate<string>(failure(wasm(2))), /a Content Security Policy must allow worker-src blob:/);
  }, PATIENCE);
}

const last = suite('package: the pages');
last('are closed', async () => {
  await setting.page!.close();
});
