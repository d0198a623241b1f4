/** Every format with every granularity and recipe that is allowed: the same bytes on both backends. */
import { ok } from 'uvu/assert';
import { alignAppend, allowedPolicies, pageLayout, wasmBackend, type Policy } from '../../src/index.js';
import { hardRows, randomCache } from '../../src/align/inputs.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`policies, wasm and ${adapterName}`, { skip: noAdapter });
const wasm = wasmBackend();
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

const [kvHeads, headDim, blockSize, tokens] = [3, 24, 8, 40];
const scaleCounts = { tensor: 1, head: kvHeads, channel: kvHeads * headDim } as const;

function scalesOf({ granularity, scales }: Policy, seed: number): Float32Array | undefined {
  if (scales !== 'given') return undefined;
  return Float32Array.from(random(seed).normals(scaleCounts[granularity as keyof typeof scaleCounts]), (x) => Math.abs(x) + 2 ** -20);
}

for (const policy of allowedPolicies()) {
  const { format, granularity, recipes } = policy;
  test(`${format}, ${granularity}${recipes.length > 0 ? `: ${recipes.join(', ')}` : ''}`, async () => {
    const side = { dtype: format, granularity, groupSize: granularity === 'group' ? 8 : undefined };
    const layout = pageLayout({ kvHeads, headDim, blockSize, k: side, v: side });
    for (const [i, recipe] of (recipes.length > 0 ? recipes : [undefined]).entries()) {
      for (const dtype of ['f32', 'f16', 'bf16'] as const) {
        const numbers = random(100 + i);
        const { count, cache: start, blockTable } = randomCache(numbers, layout, [tokens]);
        const slotMapping = Int32Array.from({ length: tokens }, (_, j) => (j % 7 === 3 ? -1 : blockTable[Math.floor(j / blockSize)] * blockSize + (j % blockSize)));
        const rows = () => hardRows(numbers, dtype, tokens * kvHeads, headDim);
        const result = await alignAppend(wasm, backend, { layout, count, start, key: rows(), value: rows(), dtype, slotMapping, recipe, kScale: scalesOf(policy, 7), vScale: scalesOf(policy, 8) });
        ok(result.ok, `${recipe}, ${dtype}: ${result.summary}`);
      }
    }
  });
}
