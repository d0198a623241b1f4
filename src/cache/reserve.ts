/** What steps ask for, checked, and the pages that they get. */
import { OutOfPagesError } from '../errors.js';
import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';
import type { ResolvedCache } from './config.js';
import type { Growth, PageGroup } from './groups.js';
import { quantizeNext, type Residual, type ResidualNext } from './residual.js';
import { Sequence } from './sequence.js';
import type { Reservation, StepEntry } from './step.js';
import type { TokenIds } from './token-log.js';

/** An entry of a step, checked. */
export interface Entry {
  readonly sequence: Sequence;
  readonly tokens: number;
  readonly ids: TokenIds | undefined;
}

/** @throws TypeError or RangeError for what are no ids of tokens */
export function checkIds(ids: TokenIds, argument: string): TokenIds {
  if (typeof ids !== 'object' || ids === null || !Number.isSafeInteger(ids.length) || ids.length < 0) throw new TypeError(`"${argument}" expected the ids of tokens, got ${describe(ids)}`);
  for (let i = 0; i < ids.length; i++) checkInteger(ids[i], `${argument}[${i}]`, 0, 0xffffffff);
  return ids;
}

/** @throws TypeError, RangeError or Error naming the entry that does not fit */
export function checkEntries(entries: readonly StepEntry[], owner: Sequence['cache']): Entry[] {
  if (!Array.isArray(entries)) throw new TypeError(`"entries" expected an array, got ${describe(entries)}`);
  const seen = new Set<Sequence>();
  // Not by `map`, which passes by what an array lacks.
  return Array.from(entries as readonly StepEntry[], (entry, index): Entry => {
    if (typeof entry !== 'object' || entry === null) throw new TypeError(`"entries[${index}]" expected { sequence, tokens }, got ${describe(entry)}`);
    const { sequence, tokens } = entry;
    if (!(sequence instanceof Sequence) || sequence.cache !== owner) throw new TypeError(`"entries[${index}].sequence" expected a sequence of this cache, got ${describe(sequence)}`);
    sequence.assertIdle();
    if (seen.has(sequence)) throw new TypeError(`"entries[${index}].sequence" expected each sequence once, got one again`);
    seen.add(sequence);
    if (typeof tokens !== 'object' || tokens === null) return { sequence, tokens: checkInteger(tokens, `entries[${index}].tokens`, 0), ids: undefined };
    checkIds(tokens, `entries[${index}].tokens`);
    // The caller's array may hold other tokens by the time that the step is committed.
    return { sequence, tokens: tokens.length, ids: owner.keyChain && Array.from(tokens) };
  });
}

/**
 * What limits a single sequence, and not all together.
 * @throws RangeError naming the entry that is too long; OutOfPagesError in a contiguous cache
 */
export function checkLengths(entries: readonly Entry[], { contiguous, blockSize, context, chunk = Infinity, limited }: ResolvedCache): void {
  for (const [index, { sequence, tokens }] of entries.entries()) {
    if (tokens > chunk) throw new RangeError(`"entries[${index}].tokens" expected at most ${chunk}, the cache's "chunk", got ${tokens}`);
    const end = sequence.length + tokens;
    if (limited && end > context) throw new RangeError(`"entries[${index}].tokens" expected at most ${context - sequence.length} more, as the cache's "context" is ${context}, got ${tokens}`);
    if (!contiguous || end <= blockSize) continue;
    // A sequence of a contiguous cache is one run of slots: there is no second page for it, free or not.
    const held = sequence.blocks.length;
    throw new OutOfPagesError(Math.ceil(end / blockSize) - held, 1 - held, `a sequence has one, of ${blockSize} tokens: truncate it`);
  }
}

/** What a sequence's part in a step is to become. */
interface Outlook extends Entry {
  readonly next: ResidualNext;
  readonly growth: readonly Growth[];
}

function outlookOf({ sequence, tokens, ids }: Entry, groups: readonly PageGroup[], residual: Residual | undefined): Outlook {
  const { length, held, due } = sequence.state;
  const at = groups.findIndex(({ kind }) => kind === 'residual');
  const quantized = at < 0 ? length : held[at].floor;
  const end = length + tokens;
  const next = residual === undefined || at < 0 || tokens === 0 ? { quantized, due } : quantizeNext({ quantized, length, due }, tokens, residual);
  const growth = groups.map(({ kind, late }): Growth => {
    if (kind === 'residual') return { floor: next.quantized, begin: Math.max(next.quantized, length), end };
    return late ? { floor: 0, begin: quantized, end: next.quantized } : { floor: 0, begin: length, end };
  });
  return { sequence, tokens, ids, next, growth };
}

/**
 * Pages for all tokens of a step, in all groups.
 * @throws OutOfPagesError; nothing is reserved then
 */
export function reserve(entries: readonly Entry[], groups: readonly PageGroup[], { residual, contiguous }: Pick<ResolvedCache, 'residual' | 'contiguous'>): Reservation[] {
  const outlooks = entries.map((entry) => outlookOf(entry, groups, residual));
  for (const [g, group] of groups.entries()) {
    let need = 0;
    for (const { sequence, growth } of outlooks) need += group.pagesNeeded(sequence.state.held[g], growth[g]);
    if (need <= group.pool.free) continue;
    // Of what each sequence has room of its own for, a larger capacity is no more.
    throw new OutOfPagesError(need, group.pool.free, undefined, undefined, contiguous || group.kind !== 'all' ? 'more "sequences"' : undefined);
  }
  return outlooks.map(({ sequence, tokens, ids, next, growth }): Reservation => {
    const { held } = sequence.state;
    sequence.enterStep();
    return { sequence, tokens, ids, due: next.due, groups: groups.map((group, g) => group.reserve(held[g], growth[g])) };
  });
}
