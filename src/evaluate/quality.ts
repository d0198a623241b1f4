/** How much a cache changes what the model says: perplexity, KL divergence and top-1 agreement over a text. */
import type { CachedModel } from '../model/cached-model.js';

export interface Quality {
  readonly perplexity: number;
  /** Mean KL(first model ‖ this one), nats per token. */
  readonly kl: number;
  /** Share of positions whose likeliest token is the first model's. */
  readonly agreement: number;
  /** Tokens per second, whole windows at a time. */
  readonly tokensPerSecond: number;
}

/** Sums over the windows, for one model. */
class Tally {
  logLoss = 0;
  kl = 0;
  agree = 0;
  positions = 0;
  milliseconds = 0;

  get quality(): Quality {
    return {
      perplexity: Math.exp(this.logLoss / this.positions),
      kl: this.kl / this.positions,
      agreement: this.agree / this.positions,
      tokensPerSecond: (1000 * this.positions) / this.milliseconds,
    };
  }
}

/** What is needed of a row of logits. */
interface Row {
  readonly logSum: number;
  readonly top: number;
}

function summarize(logits: Float32Array): Row {
  let top = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[top]) top = i;
  const largest = logits[top];
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - largest);
  return { logSum: largest + Math.log(sum), top };
}

/** KL(p ‖ q) of two rows of logits. */
function divergence(p: Float32Array, pRow: Row, q: Float32Array, qRow: Row): number {
  let difference = 0;
  for (let i = 0; i < p.length; i++) difference += Math.exp(p[i] - pRow.logSum) * (p[i] - q[i]);
  return difference - pRow.logSum + qRow.logSum;
}

/**
 * Runs a text through all models, window by window, each window from an empty cache.
 * @param ids the text, without the token `bos` that begins each window
 * @param onWindow is called after each window of each model
 * @returns one result per model; the first model is what the others are compared with
 */
export async function measure(models: readonly CachedModel[], ids: readonly number[], bos: number, onWindow: () => void): Promise<Quality[]> {
  const { vocab } = models[0].runner.config;
  const window = models[0].runner.maxTokens;
  const tallies = models.map(() => new Tally());
  for (let start = 0; start < ids.length; start += window) {
    const targets = ids.slice(start, start + window);
    const inputs = [bos, ...targets.slice(0, -1)];
    let reference = new Float32Array(0);
    let referenceRows: Row[] = [];
    for (const [m, model] of models.entries()) {
      const begin = performance.now();
      model.restart();
      const logits = await model.feed(inputs);
      tallies[m].milliseconds += performance.now() - begin;
      const rows = targets.map((_, i) => summarize(logits.subarray(i * vocab, (i + 1) * vocab)));
      if (m === 0) {
        reference = logits.slice();
        referenceRows = rows;
      }
      for (const [i, target] of targets.entries()) {
        const row = [i * vocab, (i + 1) * vocab] as const;
        tallies[m].logLoss += rows[i].logSum - logits[i * vocab + target];
        if (m > 0) tallies[m].kl += divergence(reference.subarray(...row), referenceRows[i], logits.subarray(...row), rows[i]);
        if (rows[i].top === referenceRows[i].top) tallies[m].agree++;
      }
      tallies[m].positions += targets.length;
      onWindow();
    }
  }
  return tallies.map(({ quality }) => quality);
}
