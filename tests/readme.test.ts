/** What a user reads first is what must run: every example of README.md and of docs/, on the built package. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { is, match } from 'uvu/assert';
import { noAdapter } from './gpu/adapter.js';
import { adapterEnvironment } from './gpu/environment.js';
import { suite } from './suite.js';

interface Example {
  readonly name: string;
  readonly prints: readonly RegExp[];
  readonly needsGpu?: boolean;
}

/** The examples of each document, in their order. */
const documents: { readonly [file: string]: readonly Example[] } = {
  'README.md': [
    { name: 'start', prints: [/^5 tokens, 272 bytes each instead of 1024; out\[0\] is 3\.0000\n$/] },
    {
      name: 'the codec',
      prints: [/Uint8Array\(4\) \[ 56, 128, 126, 127 \]/, /Float32Array\(4\) \[ 1, -0, 448, NaN \]/, /Float32Array\(2\) \[ 0.140625, 0.283482\d* \]/],
    },
  ],
  'docs/engines.md': [
    { name: 'a device', prints: [/^{ maxBufferSize: \d+, maxStorageBufferBindingSize: \d+ }\n$/] },
    { name: 'recording into your encoder', prints: [/^3 tokens\n$/], needsGpu: true },
    { name: 'the operations', prints: [/^1 Float32Array\(2\) \[ 0.6931\d*, 1.0986\d* \]\n$/] },
  ],
  'docs/node.md': [{ name: 'on the CPU', prints: [/^2 and 5 tokens, 6528 bytes each\n$/] }],
  'docs/kernel-authors.md': [{ name: 'the oracle', prints: [/^false 2 non-saturating\ntrue true\n$/] }],
  'docs/cache.md': [
    { name: 'windows', prints: [/^767 32768\n136 152\n$/] },
    { name: 'snapshots', prints: [/^3 tokens\n$/] },
    { name: "Hugging Face's cache", prints: [/^1 × 1 × 6 × 8 6\n1 × 1 × 6 × 8 6\n$/] },
  ],
  'docs/coming-from.md': [
    { name: 'vLLM', prints: [/^0.25\ntrue\n$/] },
    { name: 'llm-compressor', prints: [/^e4m3fn head 512\n$/] },
    { name: 'FlashInfer', prints: [/^2 4\.3923 4\.3923\nInt32Array\(2\) \[ 5, 16 \]\n$/] },
    { name: 'Mila', prints: [/^0.125\n$/] },
  ],
  'docs/scales.md': [
    { name: 'calibrating', prints: [/^e4m3fn head 4\.\d\n512 instead of 2048\n$/] },
    { name: 'reading', prints: [/^the files: no scale for layer and side 1\.k, 1\.v: 1 is taken\ne4m3fn tensor 2\n$/] },
    { name: 'writing', prints: [/^true config\.json, scales\.safetensors\n$/] },
  ],
  'docs/sharing.md': [
    { name: 'in one process', prints: [/^0 tokens found, 103 computed\n96 tokens found, 8 computed\n{ hits: 6, misses: 6, evictions: 0, stored: 0, fetched: 0 }\n$/] },
    { name: 'in several processes', prints: [/^2 pages stored\n32 tokens found\n$/] },
    { name: 'a context on several machines', prints: [/^as on one machine\n$/] },
  ],
};

const root = fileURLToPath(new URL('..', import.meta.url));

/** Runs an example in a file inside the package, where `fp8-kv` is the package itself, and in a folder of its own. */
function run(code: string, name: string, env: NodeJS.ProcessEnv): string {
  const folder = join(root, 'build', 'readme');
  const file = join(folder, `${name}.mjs`);
  const cwd = mkdtempSync(join(tmpdir(), 'fp8-kv-'));
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, code);
  try {
    return execFileSync(process.execPath, [file], { encoding: 'utf8', env, cwd });
  } finally {
    rmSync(file);
    rmSync(cwd, { recursive: true });
  }
}

/** Its examples need other packages: they run in tests/adapters. */
const ofAdapters = 'docs/adapters.md';

for (const document of ['README.md', ...readdirSync(join(root, 'docs')).filter((file) => file.endsWith('.md')).map((file) => `docs/${file}`)].filter((file) => file !== ofAdapters)) {
  const expected = documents[document] ?? [];
  const examples = [...readFileSync(join(root, document), 'utf8').matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code);
  const test = suite(document);

  test(`has as many examples as are run (${expected.length})`, () => {
    is(examples.length, expected.length);
  });

  for (const [index, { name, prints, needsGpu }] of expected.entries()) {
    test(name, async () => {
      if (needsGpu && noAdapter && process.env.REQUIRE_GPU !== '1') return;
      const output = run(examples[index], name.replaceAll(/\W/g, '-'), needsGpu ? await adapterEnvironment() : process.env);
      for (const expression of prints) match(output, expression);
    });
  }
}
