import { equal, is, ok } from 'uvu/assert';
import { LogitRows, QualityTally, type Quality } from '../../src/evaluate/quality.js';
import { suite } from '../suite.js';

const test = suite('evaluate/quality');

const near = (actual: number, expected: number): void => ok(Math.abs(actual - expected) <= 1e-6 * Math.max(1, Math.abs(expected)), `expected ${expected}, got ${actual}`);

/** Logits of rows of probabilities; a row may have any constant added. */
const rowsOf = (rows: readonly (readonly number[])[], shift = 0): LogitRows => new LogitRows(Float32Array.from(rows.flat(), (p) => Math.log(p) + shift), rows[0].length);

function qualityOf(rows: LogitRows, reference: LogitRows, targets: readonly number[]): Quality {
  const tally = new QualityTally(targets.length);
  tally.add(rows, reference, targets);
  return tally.quality;
}

test('a model that knows nothing of 8 tokens has perplexity 8', () => {
  const rows = rowsOf([Array(8).fill(1 / 8), Array(8).fill(1 / 8)], 100);
  const { perplexity, kl, agreement } = qualityOf(rows, rows, [3, 7]);
  near(perplexity, 8);
  equal({ kl, agreement }, { kl: { mean: 0, p99: 0, max: 0 }, agreement: 1 });
});

test('perplexity is e to the mean loss, KL is Σ p ln(p / q), agreement counts the likeliest', () => {
  const p = [[0.5, 0.25, 0.25], [0.7, 0.2, 0.1]];
  const q = [[0.25, 0.5, 0.25], [0.6, 0.2, 0.2]];
  const { perplexity, kl, agreement } = qualityOf(rowsOf(q, -3), rowsOf(p, 5), [0, 2]);
  near(perplexity, Math.exp(-(Math.log(0.25) + Math.log(0.2)) / 2));
  const of = (i: number): number => p[i].reduce((sum, each, n) => sum + each * Math.log(each / q[i][n]), 0);
  near(kl.mean, (of(0) + of(1)) / 2);
  near(kl.max, Math.max(of(0), of(1)));
  is(agreement, 0.5);
});

for (const [tokens, rank] of [[200, 198], [150, 149], [1, 1]]) {
  test(`the 99th percentile is the nearest rank: of ${tokens} tokens number ${rank}`, () => {
    const reference = rowsOf([[0.5, 0.5]]);
    const tally = new QualityTally(tokens);
    const divergences: number[] = [];
    for (let i = 0; i < tokens; i++) {
      // In no order.
      const share = 0.5 + ((i * 77) % tokens) / 500;
      const rows = rowsOf([[share, 1 - share]]);
      divergences.push(rows.divergenceFrom(reference, 0));
      tally.add(rows, reference, [0]);
    }
    divergences.sort((a, b) => a - b);
    const { p99, max } = tally.quality.kl;
    is(p99, divergences[rank - 1]);
    is(max, divergences.at(-1));
  });
}

test('a NaN is not taken for agreement with nothing: it shows', () => {
  const broken = (): LogitRows => new LogitRows(Float32Array.of(NaN, 1, 2), 3);
  // The likeliest is the first in both.
  const sound = rowsOf([[0.5, 0.2, 0.3]]);
  for (const [rows, reference] of [[broken(), sound], [sound, broken()], [broken(), broken()]]) {
    const { perplexity, kl, agreement } = qualityOf(rows, reference, [1]);
    is(Number.isNaN(perplexity), rows !== sound);
    ok(Number.isNaN(kl.mean) && Number.isNaN(kl.max));
    is(agreement, 0);
  }
});

test('a divergence that rounding makes negative is none', () => {
  for (let i = 0; i < 200; i++) {
    const logits = Float32Array.from({ length: 50 }, (_, n) => Math.sin(i + n * n) * 9);
    const { kl } = qualityOf(new LogitRows(logits, 50), new LogitRows(logits.map((each) => each + 1), 50), [0]);
    ok(kl.mean >= 0 && kl.mean < 1e-6);
  }
});
