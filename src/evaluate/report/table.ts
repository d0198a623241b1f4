/** All variants in numbers. */
import { isQuantized } from '../../formats.js';
import type { Evaluation, VariantResult } from '../evaluation.js';
import { candidates, comparable } from './answer.js';
import { inlineMark } from './marks.js';
import { change, count, divergence, escape, perplexity, share, times } from './text.js';

interface Column {
  readonly head: string;
  /** What it is sorted by. */
  value(variant: VariantResult, reference: VariantResult): number;
  text(variant: VariantResult, reference: VariantResult): string;
  /** The smallest is best; by default of `value`. */
  cost?(variant: VariantResult, reference: VariantResult): number;
}

const relative = (variant: VariantResult, reference: VariantResult): number => variant.perplexity / reference.perplexity - 1;
const distance = (variant: VariantResult, reference: VariantResult): number => Math.abs(variant.perplexity - reference.perplexity);
const size = (variant: VariantResult, reference: VariantResult): number => variant.bytesPerToken / reference.bytesPerToken;

const columns: readonly Column[] = [
  { head: 'Bytes per\u00a0token', value: ({ bytesPerToken }) => bytesPerToken, text: ({ bytesPerToken }) => count(bytesPerToken) },
  { head: 'Bytes, × reference', value: size, text: (variant, reference) => times(size(variant, reference)) },
  { head: 'Perplexity', value: (variant) => variant.perplexity, text: (variant) => perplexity(variant.perplexity), cost: distance },
  { head: 'Change of perplexity', value: relative, text: (variant, reference) => change(variant.perplexity, reference.perplexity), cost: distance },
  { head: 'KL,\u00a0mean', value: ({ kl }) => kl.mean, text: ({ kl }) => divergence(kl.mean) },
  { head: 'KL,\u00a0p99', value: ({ kl }) => kl.p99, text: ({ kl }) => divergence(kl.p99) },
  { head: 'KL,\u00a0max', value: ({ kl }) => kl.max, text: ({ kl }) => divergence(kl.max) },
  { head: 'Top-1 agreement', value: ({ agreement }) => agreement, text: ({ agreement }) => share(agreement), cost: ({ agreement }) => -agreement },
];

/** The cost that is marked in a column, unless all have it. */
function bestCost(column: Column, variants: readonly VariantResult[], reference: VariantResult): number | undefined {
  const costs = variants.map((variant) => (column.cost ?? column.value)(variant, reference)).filter(Number.isFinite);
  const least = Math.min(...costs);
  return costs.every((cost) => cost === least) ? undefined : least;
}

export function table(evaluation: Evaluation): string {
  const [reference, ...others] = evaluation.variants;
  const compared = candidates(evaluation).filter(comparable);
  const best = columns.map((column) => bestCost(column, compared, reference));
  const cell = (column: Column, i: number, variant: VariantResult): string => {
    const isBest = best[i] !== undefined && compared.includes(variant) && (column.cost ?? column.value)(variant, reference) === best[i];
    const text = column.text(variant, reference);
    return `<td data-value="${column.value(variant, reference)}">${isBest ? `<strong>${text}<span class="aside"> (best)</span></strong>` : text}</td>`;
  };
  const row = (variant: VariantResult): string =>
    `<tr><th scope="row">${inlineMark(variant.dtype)} ${escape(variant.name)}${variant === reference ? ' <small>reference</small>' : ''}</th>${columns.map((column, i) => cell(column, i, variant)).join('')}</tr>`;
  return `<section aria-labelledby="numbers">
<h2 id="numbers">The numbers</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="numbers">
<table id="variants">
<thead><tr>${['Variant', ...columns.map(({ head }) => head)].map((head) => `<th scope="col">${head}</th>`).join('')}</tr></thead>
<tbody>${row(reference)}</tbody>
<tbody>${others.map(row).join('\n')}</tbody>
</table>
</div>
<p class="note">Bold and underlined: the best of its column ${compared.some(({ dtype }) => isQuantized(dtype)) ? 'among those of 8 bits' : 'beside the reference'}; for perplexity, the nearest to the reference’s. KL is in nats per token, from the reference’s prediction of the next token to this one’s. p99: 99 % of tokens have no more. Top-1 agreement: tokens whose likeliest successor is the reference’s.</p>
</section>`;
}
