/**
 * Caches of nearly 4 GiB, down to their highest pages. Pages that nobody writes are zeros that the system need not back, so that
 * this takes address space more than memory.
 */
import { ok, throws } from 'uvu/assert';
import { KvCache, pageLayout, wasmBackend, type AttendResult, type LayerConfig, type NhdTensors, type Sequence, type WasmBackend, type WasmPages } from '../../src/index.js';
import { ATTENTION_BOUND, attentionError } from '../../src/files/compare.js';
import { assertSameBits } from '../bits.js';
import { builds } from '../builds.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const GIB = 2 ** 30;
/** What is left to working memory. */
const LEFT = 2 ** 26;
const BLOCK = 16;
const shape = { queryHeads: 16, kvHeads: 8, headDim: 128 };
/** Two full pages and half a third. */
const TOKENS = 2.5 * BLOCK;
const PAGES = 3;

type Config = Pick<LayerConfig, 'dtype' | 'granularity'> & { readonly layers: number };

/** Pages that a cache has when all its layers together take that many bytes. */
function pagesIn(bytes: number, { layers, dtype, granularity }: Config): number {
  const side = { dtype, granularity } as object;
  return Math.floor(bytes / layers / pageLayout({ ...shape, blockSize: BLOCK, k: side, v: side }).bytes);
}

const cacheOf = (backend: WasmBackend, config: Config, pages: number): KvCache => new KvCache(backend, { ...shape, ...config, blockSize: BLOCK, capacity: pages * BLOCK });

/** A prompt and five tokens one by one, through every layer: what the last step answers, and what the pages then hold. */
function exercise(cache: KvCache, sequence: Sequence): (AttendResult & NhdTensors)[] {
  const { queryHeads, kvHeads, headDim } = shape;
  const numbers = random(4);
  let results: AttendResult[] = [];
  for (const tokens of [TOKENS - 5, 1, 1, 1, 1, 1]) {
    const step = cache.begin([{ sequence, tokens }]);
    results = Array.from({ length: cache.layers }, (_, layer) => {
      void step.append(layer, numbers.normals(tokens * kvHeads * headDim), numbers.normals(tokens * kvHeads * headDim));
      return step.attendSync(layer, numbers.normals(tokens * queryHeads * headDim, 6));
    });
    step.commit();
  }
  return results.map((result, layer) => ({ ...result, ...(cache.pages(layer) as WasmPages).export(sequence.blocks[0], PAGES) }));
}

/** A sequence in the highest pages: all others are held by a step that does not end. */
function highest(cache: KvCache): Sequence {
  cache.begin([{ sequence: cache.createSequence(), tokens: cache.capacity - PAGES * BLOCK }]);
  return cache.createSequence();
}

const configs: readonly Config[] = [
  { layers: 1, dtype: 'e4m3fn' }, { layers: 1, dtype: 'e5m2', granularity: 'tensor' }, { layers: 1, dtype: 'f16' }, { layers: 1, dtype: 'f32' }, { layers: 3, dtype: 'e4m3fn' },
];

for (const simd of builds) {
  const test = suite(`cache of 4 GiB, ${simd}`);

  for (const config of configs) {
    test(`${config.dtype}, ${config.layers === 1 ? 'a layer' : `${config.layers} layers`}: the highest pages are as any, and a page too many is refused`, () => {
      const low = cacheOf(wasmBackend({ simd }), config, PAGES);
      const expected = exercise(low, low.createSequence());
      // By a backend of its own: what a refused cache gives back is cleared, and that is then no longer unbacked.
      throws(() => cacheOf(wasmBackend({ simd }), config, pagesIn(4 * GIB, config) + 1), /^"pages" expected to fit into WebAssembly memory, got \d+ bytes: \d+ bytes are left of 4 GiB$/);
      const cache = cacheOf(wasmBackend({ simd }), config, pagesIn(4 * GIB - LEFT, config));
      const last = cache.pages(config.layers - 1) as WasmPages;
      ok(last.address + last.byteLength > 3.9 * GIB);
      const actual = exercise(cache, highest(cache));
      for (const [layer, each] of expected.entries()) {
        for (const name of ['out', 'lse', 'keyCache', 'valueCache', 'keyScale', 'valueScale'] as const) {
          if (each[name] !== undefined) assertSameBits(actual[layer][name]!, each[name], `layer ${layer}, ${name}`);
        }
      }
    });
  }

  test('one sequence over all pages: two million keys, of which all but the last 40 are zero', () => {
    const config: Config = { layers: 1, dtype: 'e4m3fn' };
    const backend = wasmBackend({ simd });
    const cache = cacheOf(backend, config, pagesIn(4 * GIB - LEFT, config));
    exercise(cache, highest(cache));
    const q = random(5).normals(shape.queryHeads * shape.headDim, 6);
    const attend = (first: number): AttendResult => {
      const blockTable = Int32Array.from({ length: cache.capacity / BLOCK - first }, (_, i) => first + i);
      const keys = blockTable.length * BLOCK - (PAGES * BLOCK - TOKENS);
      return backend.attend({ pages: cache.pages(0), q, blockTable, cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(keys) });
    };
    // Each zero adds 1 to the denominator, and nothing to the sum.
    const few = attend(cache.capacity / BLOCK - PAGES);
    const zeros = cache.capacity - PAGES * BLOCK;
    const lse = few.lse.map((x) => Math.log(zeros + Math.exp(x)));
    const out = few.out.map((x, i) => x * Math.exp(few.lse[Math.floor(i / shape.headDim)] - lse[Math.floor(i / shape.headDim)]));
    const error = attentionError(attend(0), { out, lse }, shape.headDim);
    ok(error.out <= ATTENTION_BOUND && error.lse <= ATTENTION_BOUND, `out ${error.out}, lse ${error.lse}`);
  }, { seconds: 300 });
}
