/** What rings must do on every backend. Slots that no row to come may see are filled with NaN before each step. */
import { ok } from 'uvu/assert';
import { attentionError, ATTENTION_BOUND } from '../../src/files/compare.js';
import { decode, KvCache, quantize, type AttendResult, type Backend, type KvCacheOptions, type Sequence } from '../../src/index.js';
import { random, type Random } from '../random.js';
import { referenceAttention } from '../reference/attention.js';

/** The cache of Mila's own tests: a row sees 8 keys, chunks have 16 tokens at most. */
export const mila = { layers: 2, queryHeads: 8, kvHeads: 2, headDim: 64, capacity: 64, slidingWindow: 8, chunk: 16 } satisfies KvCacheOptions;
const kvFloats = mila.kvHeads * mila.headDim;
const qFloats = mila.queryHeads * mila.headDim;

/** Tokens of each step: 16, then up to 48 in chunks, as 16 + 16 + 8, and one by one past the window. */
const schedule = [16, 16, 8, 1, 1, 1, 1, 1, 1, 1, 1];

/** NaN in all slots but those of tokens that rows to come see. */
async function poison(cache: KvCache, sequences: readonly Sequence[]): Promise<void> {
  const [group] = cache.groups;
  const seen = new Set<number>();
  for (const { length, state } of sequences) {
    const [held] = state.held;
    for (let token = 0; token < length; token++) if (token < group.sinkTokens || token > length - group.window) seen.add(group.slotOf(held, token));
  }
  for (let layer = 0; layer < cache.layers; layer++) {
    const pages = cache.pages(layer);
    const tensors = await pages.export();
    const nan = { Uint8Array: 0x7f, Float32Array: NaN } as const;
    for (const tensor of [tensors.keyCache, tensors.valueCache, tensors.keyScale!, tensors.valueScale!]) {
      const width = tensor.length / (pages.count * group.blockSize);
      for (let slot = 0; slot < pages.count * group.blockSize; slot++) {
        if (!seen.has(slot)) tensor.fill(nan[tensor.constructor.name as keyof typeof nan], slot * width, (slot + 1) * width);
      }
    }
    await pages.import(tensors);
  }
}

/** The keys or values as the cache has them: one scale for each token and head. */
function dequantized(x: Float32Array, headDim: number): Float32Array {
  const { codes, scales } = quantize(x, { format: 'e4m3fn', rowLength: headDim });
  return decode(codes, 'e4m3fn').map((value, i) => Math.fround(value * scales[Math.floor(i / headDim)]));
}

/** Takes a sequence a step further; gives what each layer attends to. Every layer gets the same. */
async function advance(cache: KvCache, sequence: Sequence, tokens: number, numbers: Random, kept: { key: number[]; value: number[] }): Promise<{ q: Float32Array; results: AttendResult[] }> {
  await poison(cache, [sequence]);
  const [key, value, q] = [numbers.normals(tokens * kvFloats), numbers.normals(tokens * kvFloats), numbers.normals(tokens * qFloats)];
  kept.key.push(...dequantized(key, mila.headDim));
  kept.value.push(...dequantized(value, mila.headDim));
  const step = cache.begin([{ sequence, tokens }]);
  const results: AttendResult[] = [];
  for (let layer = 0; layer < cache.layers; layer++) {
    await step.append(layer, key, value);
    results.push(await step.attend(layer, q));
  }
  step.commit();
  return { q, results };
}

/** A ring over the schedule: every answer within the bound of float64 over what its window shows. */
export async function assertRing(backend: Backend, options: Partial<KvCacheOptions>): Promise<AttendResult[]> {
  const cache = new KvCache(backend, { ...mila, ...options } as KvCacheOptions);
  const numbers = random(71);
  const kept = { key: [] as number[], value: [] as number[] };
  const sequence = cache.createSequence();
  const all: AttendResult[] = [];
  for (const tokens of schedule) {
    const { q, results } = await advance(cache, sequence, tokens, numbers, kept);
    const expected = referenceAttention({
      q, queryHeads: mila.queryHeads, kvHeads: mila.kvHeads, headDim: mila.headDim, kvLen: sequence.length, windowLeft: mila.slidingWindow - 1, sinkTokens: options.sinkTokens,
      key: (j, head, d) => kept.key[j * kvFloats + head * mila.headDim + d],
      value: (j, head, d) => kept.value[j * kvFloats + head * mila.headDim + d],
    });
    for (const result of results) {
      const { out, lse } = attentionError(result, { out: Float32Array.from(expected.out), lse: Float32Array.from(expected.lse) }, mila.headDim);
      ok(out <= ATTENTION_BOUND && lse <= ATTENTION_BOUND, `${sequence.length} tokens: out ${out}, lse ${lse}`);
    }
    all.push(...results);
  }
  cache.dispose();
  return all;
}

/** The same tokens in a cache that keeps all of them, and only hides what the window does not show. */
export async function unbounded(backend: Backend): Promise<AttendResult[]> {
  const { slidingWindow, chunk: _, ...options } = mila;
  const cache = new KvCache(backend, { ...options, windowLeft: slidingWindow - 1 });
  const numbers = random(71);
  const sequence = cache.createSequence();
  const all: AttendResult[] = [];
  for (const tokens of schedule) {
    const [key, value, q] = [numbers.normals(tokens * kvFloats), numbers.normals(tokens * kvFloats), numbers.normals(tokens * qFloats)];
    const step = cache.begin([{ sequence, tokens }]);
    for (let layer = 0; layer < cache.layers; layer++) {
      await step.append(layer, key, value);
      all.push(await step.attend(layer, q));
    }
    step.commit();
  }
  cache.dispose();
  return all;
}
