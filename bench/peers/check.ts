/** Does everyone give the right answer? Against float64 attention over the very numbers that a cache holds, some rows of each. */
import { referenceAttention } from '../../tests/reference/attention.js';
import type { Contestant, Inputs, Question } from './question.js';

const answers = new WeakMap<Inputs, Map<number, Float64Array>>();

/** Row `row` of the new tokens: [queryHeads, headDim]. */
function answer(question: Question, held: Inputs, row: number): Float64Array {
  const known = answers.get(held) ?? new Map<number, Float64Array>();
  answers.set(held, known);
  const { past, queryHeads, kvHeads, headDim } = question;
  const width = queryHeads * headDim;
  const { out } = known.has(row)
    ? { out: known.get(row)! }
    : referenceAttention({
        q: held.q.subarray(row * width, (row + 1) * width),
        queryHeads,
        kvHeads,
        headDim,
        kvLen: past + row + 1,
        key: (j, head, d) => held.key[(j * kvHeads + head) * headDim + d],
        value: (j, head, d) => held.value[(j * kvHeads + head) * headDim + d],
      });
  known.set(row, out);
  return out;
}

/**
 * Largest deviation, relative to the largest value of a head's row. Rows: first, last and two between.
 * @throws Error when it is beyond what the contestant allows itself
 */
export function deviation(question: Question, contestant: Contestant): number {
  const { tokens, queryHeads, headDim } = question;
  const out = contestant.out();
  let worst = 0;
  for (const row of new Set([0, tokens >> 2, tokens >> 1, tokens - 1])) {
    const expected = answer(question, contestant.held, row);
    for (let head = 0; head < queryHeads; head++) {
      const wanted = expected.subarray(head * headDim, (head + 1) * headDim);
      const got = out.subarray((row * queryHeads + head) * headDim);
      const largest = wanted.reduce((max, x) => Math.max(max, Math.abs(x)), 1e-6);
      wanted.forEach((x, d) => (worst = Math.max(worst, got[d] === got[d] ? Math.abs(got[d] - x) / largest : Infinity)));
    }
  }
  if (worst <= contestant.tolerance) return worst;
  throw new Error(`${contestant.name}, ${contestant.cache} cache: expected to agree within ${contestant.tolerance}, is off by ${worst.toExponential(1)} on ${question.name}`);
}
