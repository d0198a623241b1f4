import { Calibration, wasmBackend, type Backend, type KvScales } from '../index.js';
import { CachedModel, type Storage } from '../model/cached-model.js';
import type { LlamaRunner } from '../model/llama.js';
import { calibrateModel } from './calibrate.js';
import type { Evaluation, VariantResult } from './evaluation.js';
import { HeadErrors } from './head-errors.js';
import { measure, windowsOf } from './measure.js';
import { isCalibrated, storageOf, type CalibratedVariant, type Variant } from './variants.js';

/** Tokens of a text, and what to call it. */
export interface Text {
  readonly name: string;
  /** Without the token that begins a sequence. */
  readonly ids: readonly number[];
}

export interface EvaluateOptions {
  readonly backend: Backend;
  readonly runner: LlamaRunner;
  readonly bos: number;
  readonly window: number;
  /** Tokens that a calibration takes as one batch: see {@link calibrateModel}. */
  readonly batch?: number;
  /** The first is the reference. */
  readonly variants: readonly Variant[];
  readonly text: Text;
  /** Needed where a variant is calibrated. Not the text that is evaluated: scales that have seen it look better than they are. */
  readonly calibration: Text | undefined;
  /** What goes into the result as it is. */
  readonly names: { readonly model: string; readonly backend: string };
  /** After each window of each model. What it throws ends the evaluation. */
  readonly onWindow?: () => void | Promise<void>;
  /** As of {@link calibrateModel}. */
  readonly onBatch?: () => void | Promise<void>;
}

/** Of a text that has no other beside it, so much calibrates, and the rest is evaluated. */
const CALIBRATION_SHARE = 0.2;

/**
 * The text in two: what scales are calibrated with, and what is evaluated.
 * @throws Error for a text of a single token
 */
export function shareOut({ name, ids }: Text): { readonly calibration: Text; readonly text: Text } {
  const first = Math.ceil(ids.length * CALIBRATION_SHARE);
  if (first === ids.length) throw new Error(`${name} expected tokens to calibrate with and others to evaluate, got ${ids.length}`);
  return { calibration: { name: `${name}, its first fifth`, ids: ids.slice(0, first) }, text: { name, ids: ids.slice(first) } };
}

/** How often `onWindow` will be called. */
export function countWindows({ text, calibration, variants, window }: Pick<EvaluateOptions, 'text' | 'calibration' | 'variants' | 'window'>): number {
  const calibrating = calibration && variants.some(isCalibrated) ? windowsOf(calibration.ids.length, window) : 0;
  return calibrating + variants.length * windowsOf(text.ids.length, window);
}

type CalibrateOptions = Pick<EvaluateOptions, 'backend' | 'runner' | 'bos' | 'window' | 'batch' | 'variants' | 'calibration' | 'onWindow' | 'onBatch'>;

/** Scales of all calibrated variants, from one pass over the calibration text. */
async function calibrate(calibrated: readonly CalibratedVariant[], options: CalibrateOptions): Promise<KvScales[]> {
  if (calibrated.length === 0) return [];
  const { runner, calibration } = options;
  if (calibration === undefined || calibration.ids.length === 0) throw new Error('calibrated scales expected a text to calibrate with');
  const { layers, kvHeads, headDim } = runner.config;
  const calibrations = calibrated.map(({ dtype, granularity, observer }) => new Calibration({ layers, kvHeads, headDim, dtype, granularity, observer }));
  await calibrateModel(calibrations, calibration.ids, options);
  return calibrations.map((each) => each.scales());
}

/** How a cache stores each variant, after the calibration that some of them need. */
export async function storagesOf(options: CalibrateOptions): Promise<Storage[]> {
  const { variants } = options;
  const calibrated = variants.filter(isCalibrated);
  const scales = await calibrate(calibrated, options);
  return variants.map((variant) => (isCalibrated(variant) ? scales[calibrated.indexOf(variant)] : storageOf(variant)));
}

function resultOf({ name, dtype, granularity, scales, observer }: Variant, figures: Omit<VariantResult, 'name' | 'dtype' | 'granularity' | 'scales' | 'observer'>): VariantResult {
  return { name, dtype, granularity, scales, observer, ...figures };
}

/** @throws Error for calibrated variants without a calibration text; what `onWindow` throws */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const { backend, runner, bos, window, variants, text, calibration, names, onWindow } = options;
  const storages = await storagesOf(options);
  const models = storages.map((storage) => new CachedModel(backend, runner, storage, window));
  // What is stored has the same bytes on every backend; this one gives them back at once.
  using exact = wasmBackend();
  const errors = storages.slice(1).map((storage) => new HeadErrors(exact, runner.config, storage));
  try {
    const onStates = (layer: number, key: Float32Array, value: Float32Array): void => errors.forEach((each) => each.add(layer, key, value));
    const measured = await measure(models, text.ids, { bos, window, onWindow, onStates });
    const { layers, queryHeads, kvHeads, headDim, context, vocab } = runner.config;
    return {
      version: 1,
      model: { name: names.model, layers, queryHeads, kvHeads, headDim, context, vocab },
      backend: names.backend,
      text: { name: text.name, tokens: text.ids.length, window },
      calibration: calibration && variants.some(isCalibrated) ? { name: calibration.name, tokens: calibration.ids.length } : undefined,
      variants: variants.map((variant, i) => {
        const { perplexity, kl, agreement } = measured[i];
        return resultOf(variant, { bytesPerToken: models[i].cache.memory.bytesPerToken, perplexity, kl, agreement, headErrors: i === 0 ? undefined : errors[i - 1].result });
      }),
    };
  } finally {
    for (const model of models) model.dispose();
  }
}
