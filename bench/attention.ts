/** Attention of ours on each build, with each number of threads that the command line names, ready to be raced. */
import { pageLayout, wasmBackend, type AttendCall, type Backend, type Format, type Pages } from '../src/index.js';
import type { SimdBuild } from '../src/wasm/features.js';
import { builds } from '../tests/builds.js';
import { normals, SEED } from './inputs.js';
import { options } from './options.js';
import { BLOCK, shuffledBlocks, slotsOf } from './pages.js';
import type { Run } from './race.js';
import type { Shape } from './shapes.js';

export const formats = ['e4m3fn', 'e5m2', 'f16', 'f32'] as const satisfies readonly Format[];

export interface Ours {
  readonly build: SimdBuild;
  readonly threads: number;
  readonly backend: Backend;
}

/** One backend each, for all that a bench measures. */
export function openBackends(): Ours[] {
  return builds.flatMap((build) => options().threads.map((threads) => ({ build, threads, backend: wasmBackend({ simd: build, threads }) })));
}

/** A sequence in pages of its own. */
export interface Cached {
  readonly backend: Backend;
  readonly shape: Shape;
  readonly pages: Pages;
  readonly blockTable: Int32Array;
}

/** Values appended at a time: all keys of a long cache at once would take more memory than the cache. */
const CHUNK = 2 ** 20;
/** Chunks are windows of this: drawing numbers for each would take longer than measuring. */
const source = normals(SEED, 2 * CHUNK);

/** A cache of that many random tokens. */
export async function fill(backend: Backend, shape: Shape, dtype: Format, tokens: number): Promise<Cached> {
  const { kvHeads, headDim } = shape;
  const blockTable = shuffledBlocks(tokens);
  const pages = backend.createPages(pageLayout({ kvHeads, headDim, blockSize: BLOCK, k: { dtype }, v: { dtype } }), blockTable.length);
  const slots = slotsOf(blockTable, tokens);
  const atOnce = Math.floor(CHUNK / (kvHeads * headDim));
  let windows = 0;
  const next = (length: number): Float32Array => {
    const start = (windows++ * 65_537) % CHUNK;
    return source.subarray(start, start + length);
  };
  for (let first = 0; first < tokens; first += atOnce) {
    const slotMapping = slots.subarray(first, first + atOnce);
    const length = slotMapping.length * kvHeads * headDim;
    await backend.append({ pages, key: next(length), value: next(length), slotMapping });
  }
  return { backend, shape, pages, blockTable };
}

/** Attention of `tokens` query rows that stand at the end of the first `keys` keys. */
export function attention({ backend, shape, pages, blockTable }: Cached, tokens: number, keys: number): Run {
  const { queryHeads, headDim } = shape;
  const q = normals(SEED, tokens * queryHeads * headDim);
  const out = new Float32Array(q.length);
  const lse = new Float32Array(tokens * queryHeads);
  const call: AttendCall = { pages, q, blockTable, cuSeqlensQ: Int32Array.of(0, tokens), seqUsedK: Int32Array.of(keys), out, lse };
  return () => backend.attend(call);
}
