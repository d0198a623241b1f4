/**
 * The answer in words, by rules that the report states:
 * a way of storing is closer than another where its mean KL is smaller; where they are equal, the one of fewer bytes, then the earlier.
 * Those within a tenth of the smallest are named beside it, since one text does not tell them apart.
 */
import { isQuantized } from '../../formats.js';
import type { Evaluation, VariantResult } from '../evaluation.js';
import { change, count, divergence, escape, list, perplexity, share, times } from './text.js';

/** Tokens under which differences in perplexity are noise. */
const ENOUGH_TOKENS = 2000;
/** Mean KL up to so many times the smallest counts as no different. */
const TIED = 1.1;
/** So many of these are named. */
const NAMED = 4;

/** Whether it takes part in comparisons. */
export const comparable = (variant: VariantResult): boolean => Number.isFinite(variant.kl.mean);

/** Of those with a finite mean KL. */
export function closest(variants: readonly VariantResult[]): VariantResult | undefined {
  return variants.filter(comparable).reduce<VariantResult | undefined>((best, each) => {
    const less = best === undefined || each.kl.mean < best.kl.mean || (each.kl.mean === best.kl.mean && each.bytesPerToken < best.bytesPerToken);
    return less ? each : best;
  }, undefined);
}

/** What the report is about: those of 8 bits, or whatever there is beside the reference. */
export function candidates({ variants }: Evaluation): readonly VariantResult[] {
  const others = variants.slice(1);
  const quantized = others.filter(({ dtype }) => isQuantized(dtype));
  return quantized.length > 0 ? quantized : others;
}

export interface Answer {
  /** One line. */
  readonly headline: string;
  /** What there is to add. */
  readonly remarks: readonly string[];
}

/** How the answer is written: names that stand out, others, and figures that no line may break in. */
export interface Writing {
  strong(name: string): string;
  name(name: string): string;
  figure(text: string): string;
}

/** For a page. */
export const html: Writing = { strong: (name) => `<b>${escape(name)}</b>`, name: escape, figure: (text) => `<span class="figure">${text}</span>` };

/** For a terminal. */
export const plain: Writing = { strong: String, name: String, figure: String };

function tokensRemark({ text }: Evaluation, { strong }: Writing): string {
  const evaluated = text.tokens === 1 ? `1 token of ${strong(text.name)} was evaluated.` : `${count(text.tokens)} tokens of ${strong(text.name)} were evaluated.`;
  return text.tokens < ENOUGH_TOKENS
    ? `${evaluated} Under ${count(ENOUGH_TOKENS)} tokens, differences in perplexity are noise, and KL is rough: evaluate more text before you choose.`
    : `${evaluated} Another text, or other lengths of context, may order them differently.`;
}

/** Of a model that does no better on its own than one that has all tokens for equally likely. */
function guessRemark({ model, variants: [reference] }: Evaluation): string[] {
  return reference.perplexity < model.vocab
    ? []
    : [`The model itself can do no better than guess here, with a perplexity of ${perplexity(reference.perplexity)} among ${count(model.vocab)} tokens: is this a text for it, and the tokenizer its own? What is said of caches says little.`];
}

/** The answer to: which dtype should this model's cache have? */
export function answer(evaluation: Evaluation, writing: Writing): Answer {
  const [reference, ...others] = evaluation.variants;
  const compared = candidates(evaluation);
  const best = closest(compared);
  const broken = others.filter((variant) => !comparable(variant));
  const named = ({ name }: VariantResult): string => writing.strong(name);
  const [guess, tokens] = [guessRemark(evaluation), tokensRemark(evaluation, writing)];
  const brokenRemark = broken.length > 0 ? [`No finite mean KL, and so left out of what is said here: ${list(broken.map(named))}.`] : [];
  if (others.length === 0) return { headline: 'Nothing to compare: only the reference was evaluated.', remarks: [...guess, tokens] };
  if (best === undefined) return { headline: 'None of the ways to store keys and values gave finite numbers.', remarks: [...guess, ...brokenRemark, tokens] };

  const size = (variant: VariantResult): string => `${times(variant.bytesPerToken / reference.bytesPerToken)} the bytes`;
  const facts = (variant: VariantResult): string => `mean KL ${writing.figure(divergence(variant.kl.mean))} at ${size(variant)}`;
  const quantized = isQuantized(best.dtype);
  const headline = compared.filter(comparable).length === 1
    ? `${named(best)} differs from ${writing.name(reference.name)}: ${facts(best)}.`
    : `${named(best)} keeps this model closest to ${writing.name(reference.name)}: ${facts(best)}.`;

  const remarks: string[] = [...guess, `With ${named(best)}, the likeliest next token is the reference’s for ${share(best.agreement)} of tokens; perplexity goes from ${perplexity(reference.perplexity)} to ${perplexity(best.perplexity)} (${change(best.perplexity, reference.perplexity)}).`];
  const said = new Set([best]);
  /** Those within a tenth of the closest of a group, and not yet spoken of. */
  const nearTo = (first: VariantResult, group: readonly VariantResult[]): string => {
    const near = group.filter((variant) => !said.has(variant) && comparable(variant) && variant.kl.mean <= TIED * first.kl.mean);
    for (const variant of near) said.add(variant);
    const more = near.length > NAMED ? [`${near.length - NAMED} more`] : [];
    return list([...near.slice(0, NAMED).map((variant) => `${named(variant)} (${facts(variant)})`), ...more]);
  };
  const tied = nearTo(best, compared);
  if (tied !== '') remarks.push(`Within a tenth of that mean KL, which is too near for one text to tell apart: ${tied}.`);

  const add = (lead: string, group: readonly VariantResult[]): void => {
    const first = closest(group);
    if (first === undefined || said.has(first)) return;
    said.add(first);
    const near = nearTo(first, group);
    remarks.push(`${lead}, ${named(first)} is closest: ${facts(first)}${near === '' ? '' : `; within a tenth of that, ${near}`}.`);
  };
  add('Of the FP8 ways', compared.filter(({ dtype }) => dtype === 'e4m3fn' || dtype === 'e5m2'));
  add('Of the int8 ways', compared.filter(({ dtype }) => dtype === 'int8'));
  const fewest = Math.min(...compared.filter(comparable).map(({ bytesPerToken }) => bytesPerToken));
  add(`Of those with the fewest bytes, ${count(fewest)} per token`, compared.filter(({ bytesPerToken }) => bytesPerToken === fewest));
  if (quantized) add('Of those that are not quantized', others.filter(({ dtype }) => !isQuantized(dtype)));
  return { headline, remarks: [...remarks, ...brokenRemark, tokens] };
}
