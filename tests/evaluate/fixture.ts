/** Evaluations as they come: numbers of about the size that the small model of this project has. */
import type { Format } from '../../src/formats.js';
import type { Evaluation, ScaleSource, VariantResult } from '../../src/evaluate/evaluation.js';
import type { Granularity } from '../../src/layout.js';

/** Numbers from 0 to 1 that look random and are the same each time. */
function noise(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Mean KL, error of keys and values, and perplexity's change for each format. */
const facts: { readonly [F in Format]: readonly [kl: number, error: number, change: number] } = {
  e4m3fn: [3.3e-4, 0.023, -1e-4], e5m2: [1.4e-3, 0.046, 1.4e-3], int8: [2e-5, 0.0058, 5e-5], f16: [1.2e-8, 1.9e-4, 1e-7], f32: [0, 0, 0],
};

type Way = readonly [dtype: Format, granularity: Granularity, scales: ScaleSource, worse: number, observer?: string];

const ways: readonly Way[] = [
  ['f16', 'tensor', 'none', 1],
  ['e4m3fn', 'tensor', 'one', 1.36], ['e4m3fn', 'tensor', 'calibrated', 1.3, 'minmax'], ['e4m3fn', 'tensor', 'calibrated', 1.22, 'mse'],
  ['e4m3fn', 'head', 'calibrated', 1.18, 'minmax'], ['e4m3fn', 'head', 'calibrated', 1.12, 'mse'], ['e4m3fn', 'channel', 'calibrated', 1.05, 'mse'], ['e4m3fn', 'token-head', 'computed', 1],
  ['e5m2', 'tensor', 'one', 1.29], ['e5m2', 'head', 'calibrated', 1.2, 'mse'], ['e5m2', 'token-head', 'computed', 1],
  ['int8', 'tensor', 'calibrated', 41, 'minmax'], ['int8', 'tensor', 'calibrated', 33, 'mse'], ['int8', 'head', 'calibrated', 12, 'mse'], ['int8', 'channel', 'calibrated', 1.07, 'mse'], ['int8', 'token-head', 'computed', 1],
];

function variant([dtype, granularity, scales, worse, observer]: Way, { layers, kvHeads, headDim }: Evaluation['model'], next: () => number): VariantResult {
  const [kl, error, change] = facts[dtype];
  const bytes = dtype === 'f32' ? 4 : dtype === 'f16' ? 2 : 1;
  const mean = kl * worse;
  const errors = (): number[][] => Array.from({ length: layers }, (_, layer) => Array.from({ length: kvHeads }, () => error * Math.sqrt(worse) * (0.75 + 0.5 * next() + 0.3 * Math.sin(layer))));
  const source = scales === 'one' ? 'scale 1' : observer;
  const name = scales === 'none' ? dtype : [dtype, granularity, source].filter(Boolean).join(', ');
  return {
    name, dtype, granularity, scales, observer,
    bytesPerToken: layers * kvHeads * 2 * (headDim * bytes + (granularity === 'token-head' ? 4 : 0)),
    perplexity: 19.838 * (1 + change * worse),
    kl: { mean, p99: mean * (8 + 6 * next()), max: mean * (300 + 500 * next()) },
    agreement: 1 - 0.6 * Math.sqrt(mean),
    headErrors: dtype === 'f32' ? undefined : { k: errors(), v: errors() },
  };
}

/** Sixteen variants and the reference, of a model of 4 layers and 2 KV heads, or another. */
export function evaluation(model: Partial<Evaluation['model']> = {}, tokens = 41370): Evaluation {
  const whole = { name: 'orator', layers: 4, queryHeads: 8, kvHeads: 2, headDim: 64, context: 1024, vocab: 1024, ...model };
  const next = noise(8);
  return {
    version: 1,
    model: whole,
    backend: 'wasm, relaxed SIMD, 2 threads',
    text: { name: 'held-out.txt', tokens, window: 1024 },
    calibration: { name: 'calibration.txt', tokens: 16384 },
    variants: [['f32', 'tensor', 'none', 1] as const, ...ways].map((way) => variant(way, whole, next)),
  };
}
