/** The packed package in Bun and Deno, where they are on the PATH: as in Node. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { equal, is, match } from 'uvu/assert';
import { assertSameBits } from '../bits.js';
import { suite } from '../suite.js';
import type { Findings } from './program.js';
import { project, type Project } from './project.js';

const runtimes: { readonly [command: string]: { readonly name: string; readonly args: readonly string[] } } = {
  // --bun: also what asks for Node by its first line.
  bun: { name: 'Bun', args: ['--bun'] },
  deno: { name: 'Deno', args: ['run', '--allow-all'] },
};

/** Threads as well; the build that has no fused products, so that bits can be compared. */
const program = `import { compute } from './program.js';
  console.log(JSON.stringify([await compute({ prefer: 'wasm' }), await compute({ wasm: { simd: 'baseline' } }), await compute({ wasm: { simd: 'baseline', threads: 3 } })]));`;

for (const [command, { name, args }] of Object.entries(runtimes)) {
  const missing = spawnSync(command, ['--version']).status === 0 ? undefined : `there is no ${command}`;
  const test = suite(`package: in ${name}`, { skip: missing, optional: true });
  let packed: Project;

  test.before(async () => {
    packed = await project();
    packed.write('runtime.js', program);
  });

  test('computes what Node does, also with threads', async () => {
    const [found, expected] = (await Promise.all([packed.run(command, [...args, 'runtime.js']), packed.run(process.execPath, ['runtime.js'])])).map((text) => JSON.parse(text) as Findings[]);
    equal(found.map(({ kind, threads, equal: right }) => [kind, threads, right]), [['wasm', 1, true], ['wasm', 1, true], ['wasm', 3, true]]);
    for (const [i, { codes, cache }] of found.entries()) equal([codes, cache], [expected[i].codes, expected[i].cache]);
    for (const i of [1, 2]) is(found[i].outBits, expected[i].outBits);
  });

  test('its command writes what it does in Node', async () => {
    const cli = join(packed.installed, 'dist', 'cli', 'main.js');
    const file = (by: string): string => `${by}.cache.safetensors`;
    await packed.run(process.execPath, [cli, 'gen', 'append', '-o', 'case.safetensors']);
    await packed.run(process.execPath, [cli, 'append', 'case.safetensors', '-o', file('node')]);
    match(await packed.run(command, [...args, cli, 'append', 'case.safetensors', '-o', file(command)]), /^ok case\.safetensors: written 36, skipped 4\n$/);
    const [found, expected] = [command, 'node'].map((by) => new Uint8Array(readFileSync(join(packed.folder, file(by)))));
    assertSameBits(found, expected, 'the cache');
    const { ok, machine } = JSON.parse(await packed.run(command, [...args, cli, 'doctor', '--json'])) as { readonly ok: boolean; readonly machine: { readonly runtime: string } };
    is(ok, true);
    match(machine.runtime, new RegExp(`^${name} \\d`));
  });
}
