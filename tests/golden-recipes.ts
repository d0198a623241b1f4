/** The golden recipes through a cache, on every backend: what append writes for each recipe, granularity and format, bit for bit. */
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

/** Row r of the files is token ⌊r / 4⌋, head r mod 4. */
const HEADS = 4;
const BLOCK = 16;

/** The granularities with more than a scale per row, or fewer: what they are called in the files. */
const granularities: { readonly [name: string]: SideOptions } = {
  'static-head': { granularity: 'head' },
  'static-channel': { granularity: 'channel' },
  group32: { granularity: 'group', groupSize: 32 },
  group64: { granularity: 'group', groupSize: 64 },
};

/** All rows in a cache of {@link HEADS} heads, with given scales or the default recipe. */
async function storedByHead(backend: Backend, { x, dtype, rows, headDim }: Input, side: SideOptions, scale: Float32Array | undefined): Promise<NhdTensors> {
  const tokens = rows / HEADS;
  const pages = backend.createPages(pageLayout({ kvHeads: HEADS, headDim, blockSize: BLOCK, k: side, v: side }), Math.ceil(tokens / BLOCK));
  await backend.append({ pages, key: x, value: x, dtype, slotMapping: Int32Array.from({ length: tokens }, (_, i) => i), kScale: scale, vScale: scale });
  const tensors = await pages.export();
  pages.dispose();
  return tensors;
}

/** `length` elements for each of some rows. */
function takeRows<T extends Uint8Array | Int8Array | Float32Array>(array: T, rows: ArrayLike<number>, length: number): T {
  const taken = array.slice(0, rows.length * length) as T;
  for (let i = 0; i < rows.length; i++) taken.set(array.subarray(rows[i] * length, (rows[i] + 1) * length), i * length);
  return taken;
}

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

    test(`${path}: scales per head, channel and group`, async () => {
      const file = parseSafetensors(golden(path), path);
      const input = inputOf(file);
      const tensor = (name: string) => file.tensors.get(name)!;
      let compared = 0;
      for (const [rule, side] of Object.entries(granularities)) {
        for (const dtype of dtypes) {
          const name = `${rule}.${dtype}`;
          // Groups of 32 and 64 are in the files of 128 dims.
          if (!file.tensors.has(`${name}.codes`)) continue;
          const rows = file.tensors.has(`${name}.rows`) ? int32(tensor(`${name}.rows`)) : Int32Array.from({ length: input.rows }, (_, i) => i);
          const scale = float32(tensor(`${name}.scale`));
          const { keyCache, valueCache, keyScale, valueScale } = await storedByHead(open(), input, { dtype, ...side }, side.groupSize ? undefined : scale);
          const codes = dtype === 'int8' ? new Int8Array(tensor(`${name}.codes`).data) : tensor(`${name}.codes`).data;
          for (const cache of [keyCache, valueCache]) assertSameBits(takeRows(cache as Uint8Array | Int8Array, rows, input.headDim), codes, name);
          for (const scales of [keyScale, valueScale]) {
            if (side.groupSize) assertSameBits(takeRows(scales!, rows, input.headDim / side.groupSize), scale, `${name}, scale`);
            else is(scales, undefined);
          }
          compared++;
        }
      }
      is(compared, input.headDim === 128 ? 12 : 6);
    });
  }
}
