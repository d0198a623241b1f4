/** Ours: pages of 16 tokens in shuffled order. */
import { decode, pageLayout, wasmBackend } from '../../src/index.js';
import type { SimdBuild } from '../../src/wasm/features.js';
import { BLOCK, shuffledBlocks, slotsOf } from '../pages.js';
import { F32_TOLERANCE, type Contestant, type Inputs, type Question } from './question.js';

export function ours(question: Question, inputs: Inputs, build: SimdBuild, dtype: 'e4m3fn' | 'f32'): Contestant {
  const { past, tokens, queryHeads, kvHeads, headDim } = question;
  const { q, key, value } = inputs;
  const keys = past + tokens;
  const backend = wasmBackend({ simd: build });
  const blockTable = shuffledBlocks(keys);
  const pages = backend.createPages(pageLayout({ kvHeads, headDim, blockSize: BLOCK, k: { dtype }, v: { dtype } }), blockTable.length);
  const slots = slotsOf(blockTable, keys);
  const split = past * kvHeads * headDim;
  const append = { pages, key: key.subarray(split), value: value.subarray(split), slotMapping: slots.subarray(past) };
  backend.append({ pages, key: key.subarray(0, split), value: value.subarray(0, split), slotMapping: slots.subarray(0, past) });
  backend.append(append);
  const out = new Float32Array(q.length);
  const attend = { pages, q, blockTable, cuSeqlensQ: Int32Array.of(0, tokens), seqUsedK: Int32Array.of(keys), out, lse: new Float32Array(tokens * queryHeads) };

  /** What the pages give back, in the order of the tokens. */
  function held(): Inputs {
    if (dtype === 'f32') return inputs;
    const { keyCache, valueCache, keyScale, valueScale } = pages.export();
    const read = (codes: Uint8Array, scales: Float32Array): Float32Array => {
      const values = decode(codes, dtype);
      const ordered = new Float32Array(keys * kvHeads * headDim);
      for (let i = 0; i < ordered.length; i++) {
        const row = Math.floor(i / headDim);
        const from = slots[Math.floor(row / kvHeads)] * kvHeads + (row % kvHeads);
        ordered[i] = values[from * headDim + (i % headDim)] * scales[from];
      }
      return ordered;
    };
    return { q, key: read(keyCache as Uint8Array, keyScale!), value: read(valueCache as Uint8Array, valueScale!) };
  }

  return {
    name: `fp8-kv ${build}`,
    cache: dtype,
    held: held(),
    tolerance: F32_TOLERANCE,
    out: () => out,
    run() {
      backend.append(append);
      backend.attend(attend);
    },
    dispose: () => backend.dispose(),
  };
}
