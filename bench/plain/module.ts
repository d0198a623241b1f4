/** assembly/plain.ts, compiled when a bench starts, without and with relaxed SIMD: the ceiling, and the loops of the control in bench/peers. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { builds } from '../../tests/builds.js';

interface PlainExports {
  attend(q: number, k: number, v: number, scores: number, out: number, rows: number, first: number, queryHeads: number, kvHeads: number, dim: number, capacity: number): void;
  multiplyAddChains(rounds: number, factor: number, term: number): number;
}

export interface PlainBuild {
  readonly name: (typeof builds)[number];
  readonly module: WebAssembly.Module;
}

const here = fileURLToPath(new URL('.', import.meta.url));

export function compilePlain(): void {
  const asc = join(dirname(createRequire(import.meta.url).resolve('assemblyscript/package.json')), 'bin', 'asc.js');
  for (const build of builds) execFileSync(process.execPath, [asc, '--config', join(here, 'asconfig.json'), '--target', build], { cwd: here, stdio: 'inherit' });
}

/** What {@link compilePlain} has left. */
export function plainBuilds(): PlainBuild[] {
  return builds.map((name) => ({ name, module: new WebAssembly.Module(readFileSync(join(here, 'build', `${name}.wasm`))) }));
}

export const instantiatePlain = ({ module }: PlainBuild, memory: WebAssembly.Memory): PlainExports =>
  new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as PlainExports;

/** As many multiplies and adds, one thread, and nothing else. */
export function ceiling(build: PlainBuild, flops: number): () => void {
  const { multiplyAddChains } = instantiatePlain(build, new WebAssembly.Memory({ initial: 1 }));
  const rounds = Math.round(flops / 96);
  return () => void multiplyAddChains(rounds, 0.99, 0.01);
}
