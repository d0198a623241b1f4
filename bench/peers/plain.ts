/** The control and the ceiling: assembly/plain.ts, compiled when the bench starts, without and with relaxed SIMD. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { F32_TOLERANCE, flops, headMajor, type Contestant, type Inputs, type Question } from './question.js';

interface PlainExports {
  attend(q: number, k: number, v: number, scores: number, out: number, rows: number, first: number, queryHeads: number, kvHeads: number, dim: number, capacity: number): void;
  multiplyAddChains(rounds: number, factor: number, term: number): number;
}

interface PlainBuild {
  readonly name: 'baseline' | 'relaxed';
  readonly module: WebAssembly.Module;
}

const here = fileURLToPath(new URL('.', import.meta.url));

function compile(target: string): void {
  const asc = join(dirname(createRequire(import.meta.url).resolve('assemblyscript/package.json')), 'bin', 'asc.js');
  execFileSync(process.execPath, [asc, '--config', join(here, 'asconfig.json'), '--target', target], { cwd: here, stdio: 'inherit' });
}

export function compilePlain(): void {
  compile('release');
  compile('relaxed');
}

/** The builds that this engine takes. */
export function plainBuilds(): PlainBuild[] {
  const files = [['baseline', 'plain'], ['relaxed', 'plain-relaxed']] as const;
  return files
    .map(([name, file]) => ({ name, bytes: readFileSync(join(here, 'build', `${file}.wasm`)) }))
    .filter(({ bytes }) => WebAssembly.validate(bytes))
    .map(({ name, bytes }) => ({ name, module: new WebAssembly.Module(bytes) }));
}

const instantiate = (module: WebAssembly.Module, memory: WebAssembly.Memory): PlainExports =>
  new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as PlainExports;

/** f32, contiguous, one query head at a time. */
export function plain(question: Question, inputs: Inputs, { name, module }: PlainBuild): Contestant {
  const { past, tokens, queryHeads, kvHeads, headDim } = question;
  const { q, key, value } = inputs;
  const keys = past + tokens;
  const sizes = [q.length, key.length, value.length, keys + 4, q.length];
  const memory = new WebAssembly.Memory({ initial: Math.ceil((sizes.reduce((a, b) => a + b) * 4) / 65536) + 2 });
  const exports = instantiate(module, memory);
  let end = 65536; // what lies below is the module's own
  const [qAt, k, v, scores, outAt] = sizes.map((floats) => (end += Math.ceil(floats / 4) * 16) - Math.ceil(floats / 4) * 16);
  const view = (address: number, floats: number): Float32Array => new Float32Array(memory.buffer, address, floats);
  headMajor(key, view(k, key.length), keys, question);
  headMajor(value, view(v, value.length), keys, question);
  const out = new Float32Array(q.length);
  const newRows = (x: Float32Array, to: number): void => {
    const f32 = view(to, x.length);
    for (let token = past; token < keys; token++) {
      for (let head = 0; head < kvHeads; head++) {
        const from = (token * kvHeads + head) * headDim;
        f32.set(x.subarray(from, from + headDim), (head * keys + token) * headDim);
      }
    }
  };
  return {
    name: `plain loop, ${name}`,
    cache: 'f32',
    held: inputs,
    tolerance: F32_TOLERANCE,
    out: () => out,
    run() {
      newRows(key, k);
      newRows(value, v);
      view(qAt, q.length).set(q);
      exports.attend(qAt, k, v, scores, outAt, tokens, past, queryHeads, kvHeads, headDim, keys);
      out.set(view(outAt, q.length));
    },
    dispose() {},
  };
}

/** As many multiplies and adds as the question asks for, and nothing else. */
export function ceiling(question: Question, module: WebAssembly.Module): () => void {
  const { multiplyAddChains } = instantiate(module, new WebAssembly.Memory({ initial: 1 }));
  const rounds = Math.round(flops(question) / 96);
  return () => void multiplyAddChains(rounds, 0.99, 0.01);
}
