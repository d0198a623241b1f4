/** Values and the codes that they must become: the same for the same seed. */
import { random } from '../align/random.js';
import { serializeSafetensors } from '../files/safetensors.js';
import { fileDtypes, float32, type Tensor } from '../files/tensor.js';
import { formats, resolveQuantizedFormat, type FloatArray, type Fp8Format } from '../formats.js';
import { scaleShape } from '../files/case.js';
import { isGiven } from '../policies.js';
import type { ScalePrecision } from '../recipe.js';
import { encode } from '../wasm/codec.js';
import { wasmBackend } from '../wasm/open.js';
import { givenScales, resolved, rowsFor, tensor, type GenerateOptions, type Resolved } from './inputs.js';
import { hardValues } from './hard-values.js';

/** `blockSize` and `queryHeads` have nothing to say here. Without `granularity`, values are encoded as they are, which int8 has no use for. */
export interface GenerateCodesOptions extends GenerateOptions {
  /** In place of the recipe's, where scales are computed. */
  readonly scalePrecision?: ScalePrecision;
  /** False: too large becomes NaN (e4m3fn) or infinity (e5m2). Only without granularity. Default true. */
  readonly saturate?: boolean;
}

function checkGoesTogether({ granularity, recipe, groupSize, scalePrecision, saturate = true }: GenerateCodesOptions, format: string): void {
  if (granularity === undefined && format === 'int8') throw new TypeError('"granularity" expected to be stated for int8, got undefined');
  if (!saturate && granularity !== undefined) throw new TypeError('"saturate" expected to be true with "granularity": scaled values saturate');
  for (const [name, value] of Object.entries({ recipe, groupSize, scalePrecision })) {
    if (value !== undefined && granularity === undefined) throw new TypeError(`"${name}" expected to be absent without "granularity"`);
    if (value !== undefined && name !== 'groupSize' && isGiven(granularity!)) throw new TypeError(`"${name}" expected to be absent where scales are given`);
  }
}

/** What an append of these rows leaves in the pages. */
function quantized({ layout, tokens, dtype, recipe }: Resolved, input: FloatArray, given: Float32Array | undefined, scalePrecision: ScalePrecision | undefined) {
  const backend = wasmBackend();
  try {
    const pages = backend.createPages(layout, Math.ceil(tokens / layout.blockSize));
    const slotMapping = Int32Array.from({ length: tokens }, (_, i) => i);
    backend.append({ pages, key: input, value: input, dtype, slotMapping, recipe, scalePrecision, kScale: given, vScale: given });
    const { keyCache, keyScale } = pages.export();
    return { codes: keyCache.subarray(0, input.length), scales: keyScale?.subarray(0, (keyScale.length / keyCache.length) * input.length) };
  } finally {
    backend.dispose();
  }
}

/**
 * A `codes/1` case: `input` [tokens, kvHeads, headDim], `scales` where they are given, and the right `expected.codes` and
 * `expected.scales`. Values lie at and beside every boundary between two codes, or are zeros, denormals, infinities, NaN, and
 * random ones; where scales are computed, rows are those of `generateAppendCase`.
 * @returns the file's bytes
 * @throws TypeError or RangeError for options that do not go together
 */
export async function generateCodes(options: GenerateCodesOptions = {}): Promise<Uint8Array> {
  const format = resolveQuantizedFormat(options.format ?? 'e4m3fn');
  checkGoesTogether(options, format);
  const { granularity, scalePrecision, saturate = true } = options;
  const all = resolved({ ...options, granularity: granularity ?? 'tensor' });
  const { seed, dtype, tokens, kvHeads, headDim, groupSize, recipe } = all;
  const numbers = random(seed);
  const shape = [tokens, kvHeads, headDim];
  const codes = formats[format].safetensors;
  const tensors = new Map<string, Tensor>();
  if (granularity === undefined) {
    const input = hardValues(numbers, format, dtype, tokens * kvHeads * headDim, () => 1);
    tensors.set('input', tensor(fileDtypes[dtype], shape, input)).set('expected.codes', tensor(codes, shape, encode(input, format as Fp8Format, { from: dtype, saturate })));
  } else {
    const given = isGiven(granularity) ? givenScales(numbers, all, 'k') : undefined;
    const input = rowsFor(numbers, all, given);
    const made = quantized(all, input, given && float32(given), scalePrecision);
    tensors.set('input', tensor(fileDtypes[dtype], shape, input)).set('expected.codes', tensor(codes, shape, made.codes));
    if (given) tensors.set('scales', given);
    if (made.scales) tensors.set('expected.scales', tensor('F32', scaleShape(granularity, groupSize, [1, ...shape]).slice(1), made.scales));
  }
  const texts = { fp8_kv_case: 'codes/1', layout: 'NHD', format, granularity, group_size: groupSize, recipe, scale_precision: scalePrecision, saturate, seed };
  return serializeSafetensors(tensors, new Map(Object.entries(texts).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]))));
}
