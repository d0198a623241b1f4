/** The packed package in Node: imported, required, its command run. */
import { existsSync } from 'node:fs';
import { equal, is, match, ok } from 'uvu/assert';
import { suite } from '../suite.js';
import type { Findings } from './program.js';
import { entries, project, type Project } from './project.js';

const test = suite('package: in Node');
let packed: Project;
test.before(async () => {
  packed = await project();
});

const node = (...args: string[]): Promise<string> => packed.run(process.execPath, args);

test('is imported and computes', async () => {
  const program = "import { compute } from './program.js'; console.log(JSON.stringify([await compute(), await compute({ threads: 2 })]));";
  const [one, two] = JSON.parse(await node('--input-type=module', '-e', program)) as Findings[];
  equal([one.choice?.backend, one.kind, one.threads, one.equal], ['wasm', 'wasm', 1, true]);
  match(one.choice!.reason, /the package "webgpu", which is not installed/);
  is(two.threads, 2);
  equal([two.codes, two.cache, two.outBits], [one.codes, one.cache, one.outBits]);
});

for (const entry of entries) {
  test(`${entry}: is required with all that one can import`, async () => {
    const program = `const required = require('${entry}');
      import('${entry}').then((imported) => console.log(JSON.stringify([Object.keys(required), Object.keys(imported)].map((names) => names.filter((name) => name !== '__esModule').sort()))));`;
    packed.write('required.cjs', program);
    const [required, imported] = JSON.parse(await node('required.cjs')) as string[][];
    equal(required, imported);
    ok(imported.length > 0);
  });
}

test('hides what is its own', async () => {
  is(await node('--input-type=module', '-e', "await import('fp8-kv/dist/layout.js').catch(({ code }) => console.log(code))"), 'ERR_PACKAGE_PATH_NOT_EXPORTED\n');
});

test('its command runs', async () => {
  ok(existsSync(packed.bin));
  is(JSON.parse(await packed.run(packed.bin, ['doctor', '--json'])).ok, true);
  await packed.run(packed.bin, ['gen', 'append', '-o', 'case.safetensors']);
  match(await packed.run(packed.bin, ['append', 'case.safetensors', '-o', 'cache.safetensors']), /^ok case\.safetensors: written 36, skipped 4\n$/);
});
