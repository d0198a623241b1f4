/** How long tokens stay as they came before they are quantized. */
import { describe } from '../formats.js';

/**
 * `page` (default): as soon as a page of tokens is older than the most recent `residual` ones, it is quantized. Of a longer run of
 * new tokens only the last stay, so that between `residual` and `residual + blockSize − 1` tokens are as they came.
 *
 * `huggingface`: the rule of the `residual_length` of Hugging Face's quantized cache. The first tokens of a sequence are
 * quantized, all of them. Those that come later stay, until a step begins with `residual − 1` of them or more, and with one at
 * least: they and the tokens of that step are quantized once it is over. So 1 is as 2.
 */
export type ResidualRule = 'page' | 'huggingface';

/** What a rule is asked about. */
export interface ResidualState {
  /** Tokens that are quantized, and tokens in all. */
  readonly quantized: number;
  readonly length: number;
  /** Whether all that are not quantized are to be with the next step. */
  readonly due: boolean;
}

/** What it says: how many tokens are quantized in a step that adds some, and whether the rest are due with the next. */
export type ResidualNext = Pick<ResidualState, 'quantized' | 'due'>;

/** A rule with its length. */
export interface Residual {
  readonly rule: ResidualRule;
  readonly tokens: number;
  /** Tokens of its pages. */
  readonly blockSize: number;
  readonly dtype: 'f32' | 'f16';
  /**
   * First tokens of a sequence that some layer keeps beside its ring: quantized at once, whatever the rule says. Among the others
   * its window would hide them, for only in its own pages are they read apart.
   */
  readonly sinkTokens: number;
}

/** @throws TypeError unless it is one */
export function checkResidualRule(rule: ResidualRule = 'page'): ResidualRule {
  if (rule !== 'page' && rule !== 'huggingface') throw new TypeError(`"residualRule" expected page or huggingface, got ${describe(rule)}`);
  return rule;
}

/** A page of the residual begins where the quantized tokens end, wherever that is: whole pages leave it. */
function quantizePages({ quantized, length }: ResidualState, added: number, { tokens, blockSize }: Residual): ResidualNext {
  const older = length + added - tokens - quantized;
  return { quantized: quantized + Math.max(0, Math.floor(older / blockSize)) * blockSize, due: false };
}

/** The step that overflows still reads its tokens as they came, and so they are quantized with the next. */
function quantizeAll({ quantized, length, due }: ResidualState, added: number, { tokens }: Residual): ResidualNext {
  if (length === 0) return { quantized: added, due: false };
  const kept = due ? length : quantized;
  const before = length - kept;
  return { quantized: kept, due: before > 0 && before + 1 >= tokens };
}

/** @param added new tokens, 1 at least */
export function quantizeNext(state: ResidualState, added: number, residual: Residual): ResidualNext {
  const { quantized, due } = residual.rule === 'page' ? quantizePages(state, added, residual) : quantizeAll(state, added, residual);
  return { quantized: Math.max(quantized, Math.min(residual.sinkTokens, state.length + added)), due };
}

/**
 * Pages for the tokens that one sequence keeps as they came, at most, and for those that a step adds to them.
 * @param longest tokens of a sequence, at most
 */
export function residualRoom({ rule, tokens, blockSize }: Residual, chunk: number, longest: number): number {
  const pages = (count: number): number => Math.ceil(count / blockSize);
  // A step's new tokens go into pages of their own where all others leave: those are given back when it is committed.
  if (rule === 'page') return 2 * pages(tokens + blockSize - 1);
  // One step may overflow, the next then finds them due, and so there are two beside the new one. All of them together are no
  // more than the sequence has, in two runs of pages.
  return Math.min(pages(Math.max(0, tokens - 2) + 2 * chunk) + pages(chunk), pages(longest) + 1);
}
