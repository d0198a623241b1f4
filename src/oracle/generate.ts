/** Inputs on which kernels go wrong, if they do, and the answers: the same for the same seed. */
import { randomCache } from '../align/inputs.js';
import { random, type Random } from '../align/random.js';
import { readAppendCase, runAppendCase } from '../files/append-case.js';
import { readAttendCase, runAttendCase } from '../files/attend-case.js';
import { scaleShape } from '../files/case.js';
import { serializeSafetensors } from '../files/safetensors.js';
import { fileDtypes, type Tensor } from '../files/tensor.js';
import { formats } from '../formats.js';
import { wasmBackend } from '../wasm/open.js';
import { bothScales, resolved, rowsFor, tensor, type GenerateOptions } from './inputs.js';

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
  const scales = new Map(bothScales(numbers, all));
  const rows = (side: 'k' | 'v'): Tensor => tensor(fileDtypes[dtype], shape, rowsFor(numbers, all, scales.get(`${side}_scale`)));
  const tensors = new Map<string, Tensor>([
    ['key', rows('k')], ['value', rows('v')], ['slot_mapping', tensor('I32', [tokens], slots(numbers, tokens, blocks * blockSize))], ...scales,
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
    ...bothScales(numbers, all),
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
