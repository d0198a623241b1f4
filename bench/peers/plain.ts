/** The control: attention over an f32 cache as one would first write it with SIMD. */
import { instantiatePlain, type PlainBuild } from '../plain/module.js';
import { F32_TOLERANCE, headMajor, type Contestant, type Inputs, type Question } from './question.js';

/** f32, contiguous, one query head at a time. */
export function plain(question: Question, inputs: Inputs, build: PlainBuild): Contestant {
  const { past, tokens, queryHeads, kvHeads, headDim } = question;
  const { q, key, value } = inputs;
  const keys = past + tokens;
  const sizes = [q.length, key.length, value.length, keys + 4, q.length];
  const memory = new WebAssembly.Memory({ initial: Math.ceil((sizes.reduce((a, b) => a + b) * 4) / 65536) + 2 });
  const exports = instantiatePlain(build, memory);
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
    name: `plain loop, ${build.name}`,
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
