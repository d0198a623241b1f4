import type { CachedModel, SeenStates } from '../model/cached-model.js';
import { LogitRows, QualityTally, type Quality } from './quality.js';

export interface Measured extends Quality {
  /** Whole windows at a time. */
  readonly tokensPerSecond: number;
}

export interface MeasureOptions {
  /** The token that each window begins with. */
  readonly bos: number;
  /** Tokens that go through a model at a time, each window from an empty cache. */
  readonly window: number;
  /** After each window of each model. What it throws ends the measuring. */
  readonly onWindow?: () => void | Promise<void>;
  /** Sees the first model's keys and values. */
  readonly onStates?: SeenStates;
}

export const windowsOf = (tokens: number, window: number): number => Math.ceil(tokens / window);

/** A text's windows: what goes in, and what should come out. */
export function* cutWindows(ids: readonly number[], { bos, window }: Pick<MeasureOptions, 'bos' | 'window'>): Generator<{ inputs: number[]; targets: readonly number[] }> {
  for (let start = 0; start < ids.length; start += window) {
    const targets = ids.slice(start, start + window);
    yield { inputs: [bos, ...targets.slice(0, -1)], targets };
  }
}

/**
 * Runs a text through all models, window by window.
 * @param ids the text, one token at least, without the one that begins each window
 * @returns one result per model; the first model is the reference
 */
export async function measure(models: readonly CachedModel[], ids: readonly number[], options: MeasureOptions): Promise<Measured[]> {
  const { vocab } = models[0].runner.config;
  const tallies = models.map(() => new QualityTally(ids.length));
  const milliseconds = models.map(() => 0);
  for (const { inputs, targets } of cutWindows(ids, options)) {
    let reference: LogitRows | undefined;
    for (const [m, model] of models.entries()) {
      model.restart();
      const begin = performance.now();
      const logits = await model.feed(inputs, m === 0 ? options.onStates : undefined);
      milliseconds[m] += performance.now() - begin;
      // The runner has one place for logits, which the next model takes.
      const rows = new LogitRows(m === 0 ? logits.slice() : logits, vocab);
      reference ??= rows;
      tallies[m].add(rows, reference, targets);
      await options.onWindow?.();
    }
  }
  return tallies.map(({ quality }, m) => ({ ...quality, tokensPerSecond: (1000 * ids.length) / milliseconds[m] }));
}
