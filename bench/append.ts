/** How many values per second does append quantize into pages? 1 M and 16 M values, half keys, half values. */
import { pageLayout, wasmBackend, type FloatArray, type FloatDtype, type Granularity } from '../src/index.js';
import { random } from '../tests/random.js';
import { report, SEED, time, type Figure } from './harness.js';

const [kvHeads, headDim, blockSize] = [8, 128, 16];
const backend = wasmBackend();
const figures: Figure[] = [];
const source = random(SEED).normals(2 ** 19);

function inputOf(dtype: FloatDtype, length: number): FloatArray {
  if (dtype === 'f32') return Float32Array.from({ length }, (_, i) => source[i % source.length]);
  const words = new Uint32Array(source.buffer);
  return Uint16Array.from({ length }, (_, i) => words[i % words.length] >>> (dtype === 'bf16' ? 16 : 17));
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
        time(`append e4m3fn ${granularity} from ${dtype}, ${millions} M`, n / 1e9, 'G values', () => {
          backend.append({ pages, key: x, value: x, dtype, slotMapping });
        }),
      );
      pages.dispose();
    }
  }
}
report('Append: values per second', figures);
