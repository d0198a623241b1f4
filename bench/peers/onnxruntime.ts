/**
 * onnxruntime-web (WebAssembly) and onnxruntime-node (native) through their public API: the operator GroupQueryAttention.
 *
 * Only `output` is asked for, and the past is one array that the caller keeps: so nothing is copied out that need not be. A step
 * by the book also takes present_key and present_value out; that is a contestant of its own, `+ present`.
 * (Outputs allocated beforehand would save that too, but onnxruntime-web 1.30 leaves tensors in memory unfilled.)
 */
import { definitions, valueOf } from '../../tests/reference/codec.js';
import { groupQueryAttention, type ElementType } from './onnx-model.js';
import { F16_TOLERANCE, F32_TOLERANCE, headMajor, type Contestant, type Inputs, type Question } from './question.js';

export type PeerName = 'onnxruntime-web' | 'onnxruntime-node';
type PeerCache = 'f32' | 'f16' | 'int8';

type Numbers = Float32Array | Uint16Array | Int8Array | Int32Array;
type Feeds = Record<string, unknown>;
interface Session {
  run(feeds: Feeds, outputs: readonly string[]): Promise<Record<string, { readonly data: Numbers }>>;
  release(): Promise<void>;
}
/** As much of onnxruntime-common as is needed here: the type-check must not depend on peers being installed. */
export interface Runtime {
  readonly Tensor: new (type: ElementType, data: Numbers, dims: readonly number[]) => unknown;
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
  readonly env: { readonly wasm: { numThreads: number } };
}

export async function loadRuntime(name: PeerName): Promise<Runtime> {
  const module = (await import(name)) as Runtime & { default?: Runtime };
  const runtime = module.InferenceSession ? module : module.default!;
  runtime.env.wasm.numThreads = 1;
  return runtime;
}

// Loops over plain indexes: TypedArray.from with a function takes ten times as long, and there are 33 million numbers.

/** Round to nearest, ties to even, of values in f16's range. */
function toHalf(x: Float32Array): Uint16Array {
  const bits = new Uint32Array(x.buffer, x.byteOffset, x.length);
  const codes = new Uint16Array(x.length);
  for (let i = 0; i < x.length; i++) {
    const magnitude = bits[i] & 0x7fffffff;
    const code = magnitude < 0x38800000 ? Math.round(Math.abs(x[i]) * 2 ** 24) : (magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13;
    codes[i] = ((bits[i] >>> 16) & 0x8000) | code;
  }
  return codes;
}

const halfValues = new Float32Array(65536).map((_, code) => valueOf(code, definitions.f16));

function fromHalf(codes: Uint16Array): Float32Array {
  const x = new Float32Array(codes.length);
  for (let i = 0; i < x.length; i++) x[i] = halfValues[codes[i]];
  return x;
}

/** One scale for all: PER_TENSOR. */
function int8Scale(x: Float32Array): number {
  let amax = 0;
  for (let i = 0; i < x.length; i++) amax = Math.max(amax, Math.abs(x[i]));
  return Math.fround(amax / 127);
}

/** As the operator quantizes new tokens: times the reciprocal, ties to even. */
function toInt8(x: Float32Array, scale: number): Int8Array {
  const factor = Math.fround(1 / scale);
  const MAGIC = 2 ** 23 + 2 ** 22; // where f32 has no bits behind the point left: adding it rounds
  const codes = new Int8Array(x.length);
  for (let i = 0; i < x.length; i++) codes[i] = Math.fround(Math.fround(x[i] * factor) + MAGIC) - MAGIC;
  return codes;
}

function fromInt8(codes: Int8Array, scale: number): Float32Array {
  const x = new Float32Array(codes.length);
  for (let i = 0; i < x.length; i++) x[i] = codes[i] * scale;
  return x;
}

export interface Stored {
  readonly name: PeerCache;
  readonly cache: ElementType;
  readonly values: ElementType;
  /** As the tensors want it. */
  readonly q: Numbers;
  readonly key: Numbers;
  readonly value: Numbers;
  readonly past: readonly [Numbers, Numbers];
  readonly scales: readonly number[];
  readonly held: Inputs;
  readonly tolerance: number;
}

/** The inputs as a cache of this type wants them; the new tokens of an int8 cache are quantized by the operator. */
export function store(question: Question, inputs: Inputs, name: PeerCache): Stored {
  const { past, kvHeads, headDim } = question;
  const length = past * kvHeads * headDim;
  const { q, key, value } = inputs;
  if (name === 'f32') {
    const pasts = [key, value].map((x) => headMajor(x, new Float32Array(length), past, question)) as [Numbers, Numbers];
    return { name, cache: 'float32', values: 'float32', q, key, value, past: pasts, scales: [], held: inputs, tolerance: F32_TOLERANCE };
  }
  if (name === 'f16') {
    const [halfQ, halfKey, halfValue] = [q, key, value].map(toHalf);
    const pasts = [halfKey, halfValue].map((x) => headMajor(x, new Uint16Array(length), past, question)) as [Numbers, Numbers];
    const held = { q: fromHalf(halfQ), key: fromHalf(halfKey), value: fromHalf(halfValue) };
    return { name, cache: 'float16', values: 'float16', q: halfQ, key: halfKey, value: halfValue, past: pasts, scales: [], held, tolerance: F16_TOLERANCE };
  }
  const scales = [key, value].map(int8Scale);
  const codes = [key, value].map((x, i) => toInt8(x, scales[i]));
  const pasts = codes.map((x) => headMajor(x, new Int8Array(length), past, question)) as [Numbers, Numbers];
  const [heldKey, heldValue] = codes.map((x, i) => fromInt8(x, scales[i]));
  return { name, cache: 'int8', values: 'float32', q, key, value, past: pasts, scales, held: { q, key: heldKey, value: heldValue }, tolerance: F32_TOLERANCE };
}

function feedsOf(runtime: Runtime, { past, tokens, queryHeads, kvHeads, headDim }: Question, stored: Stored): Feeds {
  const tensor = (type: ElementType, data: Numbers, ...dims: number[]): unknown => new runtime.Tensor(type, data, dims);
  const split = past * kvHeads * headDim;
  const rows = (x: Numbers): unknown => tensor(stored.values, x.subarray(split), 1, tokens, kvHeads * headDim);
  const feeds: Feeds = {
    query: tensor(stored.values, stored.q, 1, tokens, queryHeads * headDim),
    key: rows(stored.key),
    value: rows(stored.value),
    past_key: tensor(stored.cache, stored.past[0], 1, kvHeads, past, headDim),
    past_value: tensor(stored.cache, stored.past[1], 1, kvHeads, past, headDim),
    seqlens_k: tensor('int32', Int32Array.of(past + tokens - 1), 1), // the operator wants one less than there are
    total_sequence_length: tensor('int32', Int32Array.of(past + tokens), 1),
  };
  stored.scales.forEach((scale, i) => (feeds[i === 0 ? 'k_scale' : 'v_scale'] = tensor('float32', Float32Array.of(scale), 1)));
  return feeds;
}

export async function onnxruntime(
  name: PeerName,
  runtime: Runtime,
  question: Question,
  stored: Stored,
  outputs: readonly string[] = ['output'],
): Promise<Contestant> {
  const model = groupQueryAttention({ ...question, values: stored.values, cache: stored.cache });
  const executionProviders = [name === 'onnxruntime-web' ? 'wasm' : 'cpu'];
  const session = await runtime.InferenceSession.create(model, { executionProviders, intraOpNumThreads: 1, interOpNumThreads: 1 });
  const feeds = feedsOf(runtime, question, stored);
  let out: Numbers = new Float32Array(0);
  return {
    name: outputs.length > 1 ? `${name} + present` : name,
    cache: stored.name,
    held: stored.held,
    tolerance: stored.tolerance,
    out: () => (stored.values === 'float16' ? fromHalf(out as Uint16Array) : (out as Float32Array)),
    async run() {
      out = (await session.run(feeds, outputs)).output.data;
    },
    dispose: () => session.release(),
  };
}
