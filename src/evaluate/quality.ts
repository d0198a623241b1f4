/** How much a cache changes what the model says: perplexity, KL divergence and top-1 agreement. */

export interface Quality {
  readonly perplexity: number;
  /** KL(reference ‖ this) per token, in nats: mean, 99th percentile (nearest rank) and largest. */
  readonly kl: { readonly mean: number; readonly p99: number; readonly max: number };
  /** Share of tokens whose likeliest successor is the reference's. */
  readonly agreement: number;
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

/** KL(p ‖ q) of two rows of logits: never below 0, whatever rounding does. */
function divergence(p: Float32Array, pRow: Row, q: Float32Array, qRow: Row): number {
  let difference = 0;
  for (let i = 0; i < p.length; i++) difference += Math.exp(p[i] - pRow.logSum) * (p[i] - q[i]);
  const kl = difference - pRow.logSum + qRow.logSum;
  return kl < 0 ? 0 : kl;
}

/** Rows of logits, [tokens, vocab], with what is needed of each. */
export class LogitRows {
  readonly #logits: Float32Array;
  readonly #vocab: number;
  readonly #rows: readonly Row[];

  /** @param logits is not copied */
  constructor(logits: Float32Array, vocab: number) {
    this.#logits = logits;
    this.#vocab = vocab;
    this.#rows = Array.from({ length: logits.length / vocab }, (_, i) => summarize(this.#at(i)));
  }

  #at(token: number): Float32Array {
    return this.#logits.subarray(token * this.#vocab, (token + 1) * this.#vocab);
  }

  /** −ln of the probability that a token was given. */
  loss(token: number, target: number): number {
    return this.#rows[token].logSum - this.#at(token)[target];
  }

  /** KL(reference ‖ this) */
  divergenceFrom(reference: LogitRows, token: number): number {
    return reference === this ? 0 : divergence(reference.#at(token), reference.#rows[token], this.#at(token), this.#rows[token]);
  }

  /** A row in which a NaN is has no likeliest token: it agrees with itself alone. */
  agreesWith(reference: LogitRows, token: number): boolean {
    if (reference === this) return true;
    const [row, other] = [this.#rows[token], reference.#rows[token]];
    return row.top === other.top && !Number.isNaN(row.logSum) && !Number.isNaN(other.logSum);
  }
}

/** Sums over the tokens of a text. */
export class QualityTally {
  readonly #kl: Float64Array;
  #tokens = 0;
  #logLoss = 0;
  #agree = 0;

  /** @param tokens how many there will be, at most */
  constructor(tokens: number) {
    this.#kl = new Float64Array(tokens);
  }

  /** @param targets the token that follows each row's */
  add(rows: LogitRows, reference: LogitRows, targets: readonly number[]): void {
    for (const [i, target] of targets.entries()) {
      this.#logLoss += rows.loss(i, target);
      this.#kl[this.#tokens++] = rows.divergenceFrom(reference, i);
      if (rows.agreesWith(reference, i)) this.#agree++;
    }
  }

  get quality(): Quality {
    const sorted = this.#kl.slice(0, this.#tokens).sort();
    return {
      perplexity: Math.exp(this.#logLoss / this.#tokens),
      kl: {
        mean: sorted.reduce((sum, kl) => sum + kl, 0) / this.#tokens,
        p99: sorted[Math.ceil(0.99 * this.#tokens) - 1],
        max: sorted[this.#tokens - 1],
      },
      agreement: this.#agree / this.#tokens,
    };
  }
}
