/** A model that is calibrated: it runs a text with a cache of f32, and observers see what that is given. */
import type { Backend, Calibration } from '../index.js';
import { CachedModel } from '../model/cached-model.js';
import type { LlamaConfig } from '../model/config.js';
import type { LlamaRunner } from '../model/llama.js';
import { Batches } from './batches.js';
import { cutWindows } from './measure.js';

/** What keys, values and queries of a batch may take up, in all layers. */
const BATCH_BYTES = 2 ** 28;

const defaultBatch = ({ layers, queryHeads, kvHeads, headDim }: LlamaConfig): number => Math.max(1, Math.floor(BATCH_BYTES / (4 * layers * (2 * kvHeads + queryHeads) * headDim)));

export interface CalibrateModelOptions {
  readonly backend: Backend;
  readonly runner: LlamaRunner;
  /** The token that each window begins with. */
  readonly bos: number;
  /** Tokens that go through the model at a time, each window from an empty cache. */
  readonly window: number;
  /**
   * Tokens that observers take as one batch; default as many as 256 MiB hold. `minmax` and `mse` begin with the range of the first
   * batch, and go a hundredth of the way to that of each later one: a small first batch would decide alone.
   */
  readonly batch?: number;
  /** After each window. What it throws ends the calibration. */
  readonly onWindow?: () => void | Promise<void>;
  /** After each batch of a layer that a calibration was shown: `mse` searches for seconds. What it throws ends the calibration. */
  readonly onBatch?: () => void | Promise<void>;
}

/**
 * Shows the text's keys and values, and queries where they are asked for, to calibrations of one model.
 * @param ids the text, without the token that begins each window
 */
export async function calibrateModel(calibrations: readonly Calibration[], ids: readonly number[], { backend, runner, bos, window, batch = defaultBatch(runner.config), onWindow, onBatch }: CalibrateModelOptions): Promise<void> {
  const model = new CachedModel(backend, runner, { dtype: 'f32' }, window);
  try {
    const batches = new Batches(calibrations, batch);
    model.cache.attach(batches);
    for (const { inputs } of cutWindows(ids, { bos, window })) {
      model.restart();
      await model.feed(inputs);
      await batches.showFull(onBatch);
      await onWindow?.();
    }
    await batches.showAll(onBatch);
  } finally {
    model.dispose();
  }
}
