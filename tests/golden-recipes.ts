/** The golden recipes through a cache, on every backend: what append writes for each recipe and format, bit for bit. */
import { is } from 'uvu/assert';
import { pageLayout, recipes, type Backend, type FloatArray, type FloatDtype, type NhdTensors, type Recipe, type RecipeName, type SideOptions } from '../src/index.js';
import { parseSafetensors, type SafetensorsFile } from '../src/files/safetensors.js';
import { float32, int32, uint16 } from '../src/files/tensor.js';
import { assertSameBits } from './bits.js';
import { golden, goldenFiles } from './golden.js';
import type { Suite } from './suite.js';

interface Input {
  readonly x: FloatArray;
  readonly dtype: FloatDtype;
  readonly rows: number;
  readonly headDim: number;
}

function inputOf(file: SafetensorsFile): Input {
  const tensor = file.tensors.get('x')!;
  const dtype = tensor.dtype.toLowerCase() as FloatDtype;
  const [rows, headDim] = tensor.shape;
  return { x: dtype === 'f32' ? float32(tensor) : uint16(tensor), dtype, rows, headDim };
}

/** Some of the rows, as tokens of one head, in a cache of one page. */
async function stored(backend: Backend, { x, dtype, headDim }: Input, rows: ArrayLike<number>, side: SideOptions, call: { recipe?: RecipeName | Recipe; scale?: number }): Promise<NhdTensors> {
  const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim, blockSize: rows.length, k: side, v: side }), 1);
  const taken = x.slice(0, rows.length * headDim);
  for (let i = 0; i < rows.length; i++) taken.set(x.subarray(rows[i] * headDim, (rows[i] + 1) * headDim), i * headDim);
  const slotMapping = Int32Array.from({ length: rows.length }, (_, i) => i);
  await backend.append({ pages, key: taken, value: taken, dtype, slotMapping, recipe: call.recipe, kScale: call.scale, vScale: call.scale });
  const tensors = await pages.export();
  pages.dispose();
  return tensors;
}

const dtypes = ['e4m3fn', 'e5m2', 'int8'] as const;

export function testGoldenRecipes(test: Suite, open: () => Backend): void {
  for (const path of goldenFiles('recipes')) {
    test(`${path}: every recipe and format`, async () => {
      const file = parseSafetensors(golden(path), path);
      const input = inputOf(file);
      const tensor = (name: string) => file.tensors.get(name)!;
      const all = Int32Array.from({ length: input.rows }, (_, i) => i);
      let compared = 0;
      for (const dtype of dtypes) {
        for (const recipe of Object.keys(recipes) as RecipeName[]) {
          const name = `${recipe}.${dtype}`;
          if (!file.tensors.has(`${name}.codes`)) continue;
          const rows = file.tensors.has(`${name}.rows`) ? int32(tensor(`${name}.rows`)) : all;
          const { keyCache, valueCache, keyScale, valueScale } = await stored(open(), input, rows, { dtype }, { recipe });
          const codes = dtype === 'int8' ? new Int8Array(tensor(`${name}.codes`).data) : tensor(`${name}.codes`).data;
          for (const cache of [keyCache, valueCache]) assertSameBits(cache, codes, name);
          for (const scale of [keyScale, valueScale]) assertSameBits(scale!, float32(tensor(`${name}.scale`)), `${name}, scale`);
          compared++;
        }
        const name = `static-tensor.${dtype}`;
        const rows = file.tensors.has(`${name}.rows`) ? int32(tensor(`${name}.rows`)) : all;
        const [scale] = float32(tensor(`${name}.scale`));
        const { keyCache } = await stored(open(), input, rows, { dtype, granularity: 'tensor' }, { scale });
        assertSameBits(keyCache, dtype === 'int8' ? new Int8Array(tensor(`${name}.codes`).data) : tensor(`${name}.codes`).data, name);
      }
      is(compared, 11);
    });
  }
}
