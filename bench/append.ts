/** How many values per second does append quantize into pages? 1 M and 16 M values, half keys, half values. */
import { pageLayout, wasmBackend, type FloatArray, type FloatDtype, type Granularity } from '../src/index.js';
import { report, time, type Figure } from './harness.js';
import { normals, SEED } from './inputs.js';

const [kvHeads, headDim, blockSize] = [8, 128, 16];
const backend = wasmBackend();
const figures: Figure[] = [];

function inputOf(dtype: FloatDtype, length: number): FloatArray {
  const x = normals(SEED, length);
  if (dtype === 'f32') return x;
  // A bf16 number is the upper half of an f32 one. As f16 the same bits are other numbers, all finite, and as good.
  return Uint16Array.from(new Uint32Array(x.buffer), (bits) => bits >>> 16);
}

for (const millions of [1, 16]) {
  const n = millions * 2 ** 20;
  const tokens = n / (2 * kvHeads * headDim);
  const slotMapping = Int32Array.from({ length: tokens }, (_, i) => i);
  for (const dtype of ['f32', 'f16', 'bf16'] as const) {
    const x = inputOf(dtype, n / 2);
    for (const granularity of ['token-head', 'tensor'] as Granularity[]) {
      const side = { dtype: 'e4m3fn', granularity } as const;
      const pages = backend.createPages(pageLayout({ kvHeads, headDim, blockSize, k: side, v: side }), tokens / blockSize);
      figures.push(
        time({ name: `e4m3fn ${granularity} from ${dtype}, ${millions} M`, build: backend.simd, threads: 1 }, (seconds) => ({ 'G values/s': n / 1e9 / seconds }), () => {
          backend.append({ pages, key: x, value: x, dtype, slotMapping });
        }),
      );
      pages.dispose();
    }
  }
}
report('Append: values per second', [{ title: `${kvHeads} heads of ${headDim}, pages of ${blockSize}`, figures }]);
