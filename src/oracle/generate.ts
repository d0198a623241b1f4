/** Inputs on which kernels go wrong, if they do, and the answers: the same for the same seed. */
import { hardRows, randomCache } from '../align/inputs.js';
import { random, type Random } from '../align/random.js';
import { readAppendCase, runAppendCase } from '../files/append-case.js';
import { readAttendCase, runAttendCase } from '../files/attend-case.js';
import { scaleShape } from '../files/case.js';
import { serializeSafetensors } from '../files/safetensors.js';
import { fileDtypes, type Tensor } from '../files/tensor.js';
import { bytesOf, formats, resolveFormat, type FloatDtype, type FormatName } from '../formats.js';
import { pageLayout, type Granularity } from '../layout.js';
import { isGiven } from '../policies.js';
import type { RecipeName } from '../recipe.js';
import { wasmBackend } from '../wasm/open.js';

export interface GenerateOptions {
  /** Default 0. */
  readonly seed?: number;
  /** Of keys and values. Default e4m3fn. */
  readonly format?: FormatName;
  /** Default token-head; given scales are drawn from the seed. */
  readonly granularity?: Granularity;
  readonly groupSize?: number;
  /** Default `amax`. */
  readonly recipe?: RecipeName;
  /** Dtype of keys and values, or of q. Default f32. */
  readonly dtype?: FloatDtype;
  /** Tokens to append, or keys to attend to. Default 40. */
  readonly tokens?: number;
  /** Default 2. */
  readonly kvHeads?: number;
  /** Default 64. */
  readonly headDim?: number;
  /** Default 16. */
  readonly blockSize?: number;
  /** Of attention. Default 4 times kvHeads. */
  readonly queryHeads?: number;
}

const tensor = (dtype: Tensor['dtype'], shape: readonly number[], values: ArrayBufferView): Tensor => ({ dtype, shape, data: bytesOf(values) });

/** Everything stated, and checked by what pages may be. */
function resolved(options: GenerateOptions) {
  const { seed = 0, groupSize, recipe, dtype = 'f32', tokens = 40, kvHeads = 2, headDim = 64, blockSize = 16, queryHeads = 4 * kvHeads } = options;
  const format = resolveFormat(options.format ?? 'e4m3fn');
  const granularity = options.granularity ?? (formats[format].quantized ? 'token-head' : 'tensor');
  for (const [name, value] of Object.entries({ tokens, queryHeads })) {
    if (!Number.isSafeInteger(value) || value < 1) throw new RangeError(`"${name}" expected a positive integer, got ${value}`);
  }
  if (!Object.hasOwn(fileDtypes, dtype)) throw new TypeError(`"dtype" expected one of ${Object.keys(fileDtypes).join(', ')}, got ${String(dtype)}`);
  const side = { dtype: format, granularity, groupSize };
  const layout = pageLayout({ kvHeads, headDim, blockSize, k: side, v: side });
  return { seed, format, granularity, groupSize, recipe, dtype, tokens, kvHeads, headDim, blockSize, queryHeads, layout };
}

/** Given scales of both sides, where they are given. */
function givenScales(numbers: Random, { format, granularity, kvHeads, headDim, groupSize }: ReturnType<typeof resolved>): [string, Tensor][] {
  if (!formats[format].quantized || !isGiven(granularity)) return [];
  const shape = scaleShape(granularity, groupSize, [1, 1, kvHeads, headDim]);
  const length = shape.reduce((a, b) => a * b, 1);
  return ['k_scale', 'v_scale'].map((name) => [name, tensor('F32', shape, Float32Array.from({ length }, () => 0.01 + 0.1 * numbers.uniform()))]);
}

/** The slots of all tokens, in an order of their own; every ninth token is skipped. */
function slots(numbers: Random, tokens: number, places: number): Int32Array {
  const order = Array.from({ length: places }, (_, slot) => slot);
  for (let i = places - 1; i > 0; i--) {
    const j = numbers.integer(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return Int32Array.from({ length: tokens }, (_, i) => (i % 9 === 8 ? -1 : order[i]));
}

/**
 * An `append/1` case with the cache that it must give. Rows are of every kind that the rules of scales and codes tell apart:
 * ties, outliers, denormals, zeros, infinities and NaN.
 * @returns the file's bytes
 * @throws TypeError or RangeError for options that do not go together
 */
export async function generateAppendCase(options: GenerateOptions = {}): Promise<Uint8Array> {
  const all = resolved(options);
  const { seed, format, granularity, groupSize, recipe, dtype, tokens, kvHeads, headDim, blockSize } = all;
  const numbers = random(seed);
  const blocks = Math.ceil(tokens / blockSize) + 1;
  const shape = [tokens, kvHeads, headDim];
  const rows = (): Tensor => tensor(fileDtypes[dtype], shape, hardRows(numbers, dtype, tokens * kvHeads, headDim));
  const tensors = new Map<string, Tensor>([
    ['key', rows()], ['value', rows()], ['slot_mapping', tensor('I32', [tokens], slots(numbers, tokens, blocks * blockSize))], ...givenScales(numbers, all),
  ]);
  const metadata = new Map(Object.entries({ fp8_kv_case: 'append/1', layout: 'NHD', kv_cache_dtype: format, granularity, blocks: `${blocks}`, block_size: `${blockSize}` }));
  if (groupSize !== undefined) metadata.set('group_size', `${groupSize}`);
  if (recipe !== undefined) metadata.set('recipe', recipe);
  const backend = wasmBackend();
  try {
    const result = await runAppendCase(backend, readAppendCase(serializeSafetensors(tensors, metadata), 'the case'));
    for (const [name, each] of result.tensors) tensors.set(`expected.${name}`, each);
    return serializeSafetensors(tensors, metadata);
  } finally {
    backend.dispose();
  }
}

/**
 * An `attend/1` case of two sequences, a decode step on `tokens` keys and a prefill of a third of them, with the answer. Places
 * that no sequence uses hold NaN.
 * @returns the file's bytes
 * @throws TypeError or RangeError for options that do not go together
 */
export async function generateAttendCase(options: GenerateOptions = {}): Promise<Uint8Array> {
  const all = resolved(options);
  const { seed, format, granularity, groupSize, tokens, kvHeads, headDim, blockSize, queryHeads, layout } = all;
  const numbers = random(seed);
  const prefill = Math.ceil(tokens / 3);
  const { count, cache, blockTable, seqUsedK } = randomCache(numbers, layout, [tokens, prefill]);
  const codes = formats[format].safetensors;
  const shape = [count, blockSize, kvHeads, headDim];
  const rows = 1 + prefill;
  const tensors = new Map<string, Tensor>([
    ['k_cache', tensor(codes, shape, cache.keyCache)], ['v_cache', tensor(codes, shape, cache.valueCache)],
    ['q', tensor('F32', [rows, queryHeads, headDim], numbers.normals(rows * queryHeads * headDim))],
    ['block_table', tensor('I32', [2, blockTable.length / 2], blockTable)],
    ['cu_seqlens_q', tensor('I32', [3], Int32Array.of(0, 1, rows))], ['seqused_k', tensor('I32', [2], seqUsedK)],
    ...givenScales(numbers, all),
  ]);
  const scales = scaleShape(granularity, groupSize, shape);
  if (cache.keyScale && cache.valueScale) tensors.set('k_scale', tensor('F32', scales, cache.keyScale)).set('v_scale', tensor('F32', scales, cache.valueScale));
  const metadata = new Map([['fp8_kv_case', 'attend/1'], ['granularity', granularity], ['kv_cache_dtype', format]]);
  if (groupSize !== undefined) metadata.set('group_size', `${groupSize}`);
  const backend = wasmBackend();
  try {
    const { out, lse } = await runAttendCase(backend, readAttendCase(serializeSafetensors(tensors, metadata), 'the case'));
    tensors.set('expected.out', tensor('F32', [rows, queryHeads, headDim], out)).set('expected.lse', tensor('F32', [rows, queryHeads], lse));
    return serializeSafetensors(tensors, metadata);
  } finally {
    backend.dispose();
  }
}
