/** Caches that go through a snapshot: what must be the same on the other side. Nothing here is of Node. */
import { equal, is } from 'uvu/assert';
import { KvCache, loadSnapshot, saveSnapshot, type AttendResult, type Backend, type ByteSource, type KvCacheOptions, type NhdTensors, type Sequence } from '../../src/index.js';
import { bytesOf } from '../../src/formats.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { assertSameResult } from './tokens.js';

const base = { layers: 2, queryHeads: 4, kvHeads: 2, headDim: 8, capacity: 240, blockSize: 4 } satisfies KvCacheOptions;

/** The heads and dims that all caches here have. */
const [kvFloats, qFloats] = [base.kvHeads * base.headDim, base.queryHeads * base.headDim];

/** Every format, and every kind of scales. */
export const formats: { readonly [name: string]: Partial<KvCacheOptions> } = {
  'e4m3fn, token-head': {},
  'e5m2, token-head, scales of f16': { dtype: 'e5m2', scalePrecision: 'f16' },
  'int8, vllm-token-head': { dtype: 'int8', recipe: 'vllm-token-head' },
  'f16': { dtype: 'f16' },
  'f32': { dtype: 'f32' },
  'int8 and e4m3fn, groups': { dtype: { k: 'int8', v: 'e4m3fn' }, granularity: { k: 'group', v: 'token-head' }, groupSize: { k: 8, v: undefined }, recipe: { k: 'compressed-tensors', v: 'max-over-amax' } },
  'e4m3fn, tensor': { granularity: 'tensor', scale: { k: 0.1, v: 2 } },
  'e5m2, head': { dtype: 'e5m2', granularity: 'head', scale: { k: Float32Array.of(0.5, 1.5), v: 0.75 } },
  'int8, channel': { dtype: 'int8', granularity: 'channel', scale: Float32Array.from({ length: kvFloats }, (_, i) => 0.01 + i / 300) },
  'tensor, no scales stated': { granularity: 'tensor' },
  'one layer unquantized': { skipLayers: [1], modelDtype: 'f16' },
};

const window = { slidingWindow: 6, chunk: 13 } as const;
/** Layers that keep some tokens only, or keep them in several places. */
export const structures: { readonly [name: string]: Partial<KvCacheOptions> } = {
  'all tokens': {},
  'rings': { ...window, sequences: 8 },
  'rings with sinks': { ...window, sinkTokens: 5, sequences: 8 },
  'residual, by pages': { residual: 7, sequences: 8 },
  'residual of f16, as Hugging Face': { residual: 7, residualRule: 'huggingface', residualDtype: 'f16', chunk: 13, sequences: 8 },
  'residual before rings with sinks': { slidingWindow: 25, chunk: 13, sinkTokens: 5, residual: 3, sequences: 8 },
  'all of it': { ...window, layers: [{ slidingWindow: undefined }, { sinkTokens: 3, dtype: 'f16' }, { slidingWindow: undefined, dtype: 'f32' }, { slidingWindow: 9 }], residual: 3, sequences: 8 },
};

export const cacheOf = (backend: Backend, ...options: readonly Partial<KvCacheOptions>[]): KvCache => new KvCache(backend, Object.assign({}, base, ...options) as KvCacheOptions);

/** A committed step: what attention gives in every layer. The same numbers for the same seed. */
export async function advance(cache: KvCache, entries: readonly (readonly [Sequence, number | readonly number[]])[], seed: number): Promise<AttendResult[]> {
  const numbers = random(seed);
  const step = cache.begin(entries.map(([sequence, tokens]) => ({ sequence, tokens: tokens as number })));
  const results: AttendResult[] = [];
  for (let layer = 0; layer < cache.layers; layer++) {
    const [key, value, q] = [kvFloats, kvFloats, qFloats].map((floats) => numbers.normals(step.tokens * floats));
    await step.append(layer, key, value);
    results.push(await step.attend(layer, q));
  }
  step.commit();
  return results;
}

/** A prompt in chunks, steps one by one, a fork that goes its own way, another that was cut, and one that is empty. */
export async function live(cache: KvCache): Promise<Sequence[]> {
  const first = cache.createSequence();
  for (const [seed, tokens] of [13, 4, 1, 1, 1, 1].entries()) await advance(cache, [[first, tokens]], seed);
  const twin = first.fork();
  await advance(cache, [[first, 1], [twin, 2]], 10);
  const short = twin.fork();
  short.truncate(short.length - 1);
  return [first, twin, short, cache.createSequence()];
}

/** 20 more steps of all sequences: what attention gives. */
export async function goOn(cache: KvCache, sequences: readonly Sequence[]): Promise<AttendResult[]> {
  const results: AttendResult[] = [];
  for (let i = 0; i < 20; i++) results.push(...(await advance(cache, sequences.map((sequence, s) => [sequence, s === 3 && i % 5 === 4 ? 3 : 1] as const), 100 + i)));
  return results;
}

export async function save(cache: KvCache, sequences?: readonly Sequence[]): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of saveSnapshot(cache, { sequences })) chunks.push(chunk.slice());
  const all = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

export const load = (cache: KvCache, source: ByteSource): Promise<Sequence[]> => loadSnapshot(cache, source, { name: 'file' });

/** The bytes of what a sequence keeps, by store and token. */
async function contentsOf(cache: KvCache, { state }: Sequence): Promise<Map<string, Uint8Array>> {
  const { plans: { stores }, groups, pages } = cache.parts;
  const contents = new Map<string, Uint8Array>();
  for (const [at, { group: g }] of stores.entries()) {
    const [group, held, tensors] = [groups[g], state.held[g], await pages[at].export()];
    const slots = pages[at].count * group.blockSize;
    for (let token = group.kind === 'residual' ? held.floor : 0; token < held.end; token++) {
      const slot = group.slotOf(held, token);
      if (slot < 0) continue;
      for (const [name, tensor] of Object.entries(tensors as { [part in keyof NhdTensors]: NhdTensors[part] })) {
        if (tensor === undefined) continue;
        const bytes = bytesOf(tensor);
        const width = bytes.length / slots;
        contents.set(`store ${at}, token ${token}, ${name}`, bytes.subarray(slot * width, (slot + 1) * width));
      }
    }
  }
  return contents;
}

/**
 * The sequences are alike: lengths, what is kept of them, and each byte of that.
 * @param fewer whether the second may keep less
 */
export async function assertSameContents(one: KvCache, ones: readonly Sequence[], two: KvCache, twos: readonly Sequence[], what: string, fewer = false): Promise<void> {
  equal(twos.map(({ length }) => length), ones.map(({ length }) => length), what);
  for (const [index, sequence] of twos.entries()) {
    const [expected, actual] = [await contentsOf(one, ones[index]), await contentsOf(two, sequence)];
    if (!fewer) is(actual.size, expected.size, `${what}, sequence ${index}`);
    for (const [name, bytes] of actual) assertSameBits(bytes, expected.get(name)!, `${what}, sequence ${index}, ${name}`);
  }
}

export function assertSameResults(actual: readonly AttendResult[], expected: readonly AttendResult[], what: string): void {
  is(actual.length, expected.length);
  for (const [i, result] of actual.entries()) assertSameResult(result, expected[i], `${what}, attention ${i}`);
}
