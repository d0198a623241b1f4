/** What callers hand over as an object of named fields. */
import type { Backend } from './backend.js';
import { describe } from './formats.js';

/** Every name that options of this kind may have: the compiler finds one that is missing, and one too many. */
export type OptionNames<T> = { readonly [Name in keyof Required<T>]: true };

/** @throws TypeError unless it is an object that can have named fields */
export function checkObject(value: unknown, argument: string, expected = 'an object'): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new TypeError(`"${argument}" expected ${expected}, got ${describe(value)}`);
}

/** @throws TypeError for what is no backend, as a promise of one */
export function checkBackend(backend: Backend, argument = 'backend'): void {
  if (typeof backend?.createPages === 'function') return;
  const hint = backend instanceof Promise ? ': await it' : '';
  throw new TypeError(`"${argument}" expected a backend, as openBackend() and wasmBackend() give, got ${describe(backend)}${hint}`);
}

/** Without what systems write differently: kv_heads, kv-heads and KvHeads are one name. */
const bare = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]/g, '');

/** Letters that must be put in, left out or changed to make one of the other (Levenshtein's distance). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    row = next;
  }
  return row[b.length];
}

/** The name that was meant, or all that there are. */
function remedy(name: string, known: readonly string[]): string {
  let best: { readonly name: string; readonly away: number } | undefined;
  for (const each of known) {
    const away = distance(bare(name), bare(each));
    if (away <= (best ? best.away - 1 : 2) && away < each.length / 2) best = { name: each, away };
  }
  return best ? `is "${best.name}" meant?` : `there ${known.length === 1 ? 'is' : 'are'} ${known.join(', ')}`;
}

/**
 * A misspelt option would pass for one that is not stated, and the default for what was asked for. An undefined one is not stated.
 * Calls of a decode loop are checked as well, so that this makes no garbage.
 * @param prefix what stands before the name in the error
 * @throws TypeError unless it is an object, whose fields all have a name that is known
 */
export function checkOptions<T>(options: T, argument: string, names: OptionNames<T>, prefix = '', expected?: string): void {
  checkObject(options, argument, expected);
  for (const name in options) {
    if (Object.hasOwn(names, name) || options[name] === undefined) continue;
    throw new TypeError(`"${prefix}${name}" expected the name of an option, got an unknown one: ${remedy(name, Object.keys(names))}`);
  }
}
