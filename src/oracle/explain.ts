/** What differs between what was found and what ought to be, and which dialect it is. */
import { codeDialects, type CodeDialect, type Dialect } from './dialects.js';
import { computes } from '../policies.js';
import { recipes, type Recipe } from '../recipe.js';
import { make, rightMaking, rowMaker, type Making, type Subject, type Tensors } from './making.js';

/** All dialects that a check knows. */
export const dialects: readonly Dialect[] = codeDialects.map(({ name, summary, source }) => Object.freeze({ name, summary, source }));

/** The dialects that explain a difference. */
export interface Explanation {
  /**
   * Those that make all that was found, where the data does not tell them apart; empty where none does. Where none alone does,
   * the recipes that do, as `recipe amax`, or else two dialects at once, of different steps, as `reciprocal + torch`.
   */
  readonly all: readonly Dialect[];
  /** Where none does, the one that makes the most of what differs: half of it or more, and hardly anything that does not differ. */
  readonly most?: Dialect & {
    /** How many differing codes and scales it makes. */
    readonly explained: number;
    /** How many codes and scales that are right it would have made otherwise. */
    readonly contradicted: number;
  };
}

/** @internal places at which two tensors differ */
export interface Differences {
  readonly codes: readonly number[];
  readonly scales: readonly number[];
}

const sameScale = (a: number, b: number): boolean => Object.is(a, b);

function placesWhere(length: number, differs: (i: number) => boolean): number[] {
  const places: number[] = [];
  for (let i = 0; i < length; i++) if (differs(i)) places.push(i);
  return places;
}

/** @internal */
export function differences(expected: Tensors, found: Tensors): Differences {
  const { scales } = found;
  return {
    codes: placesWhere(found.codes.length, (i) => expected.codes[i] !== found.codes[i]),
    scales: scales === undefined || expected.scales === undefined ? [] : placesWhere(scales.length, (i) => !sameScale(expected.scales![i], scales[i])),
  };
}

/** How a dialect's tensors fit: what it makes of what differs, and what it makes wrong of what does not. */
function fit(made: Tensors, { codes, scales }: Tensors, wrong: Differences): { explained: number; contradicted: number } {
  const explained = wrong.codes.filter((i) => made.codes[i] === codes[i]).length + wrong.scales.filter((i) => sameScale(made.scales![i], scales![i])).length;
  const own = differences(made, { codes, scales });
  const left = own.codes.length + own.scales.length;
  return { explained, contradicted: left - (wrong.codes.length + wrong.scales.length - explained) };
}

/** All rows that are somewhere, those first in which something differs: what is not it is found out soon. None where something differs that is of no row. */
function rowsByDoubt({ input, dim, groupSize, place }: Subject, wrong: Differences): number[] | undefined {
  const rowAt = new Map<number, number>();
  for (let row = 0; row < input.length / dim; row++) if (place === undefined || place[row] >= 0) rowAt.set(place ? place[row] : row, row);
  const groups = dim / groupSize;
  const doubted = new Set([...wrong.codes.map((i) => rowAt.get(Math.floor(i / dim))), ...wrong.scales.map((i) => rowAt.get(Math.floor(i / groups)))]);
  if (doubted.has(undefined)) return undefined;
  return [...new Set([...(doubted as Set<number>), ...rowAt.values()])];
}

/** Whether a way makes all that was found. */
function makesAll(subject: Subject, making: Making, rows: readonly number[] | undefined): boolean {
  const { dim, groupSize, place, found } = subject;
  if (making.order !== 'kept') {
    const left = differences(make(subject, making), found);
    return left.codes.length + left.scales.length === 0;
  }
  if (rows === undefined) return false;
  const groups = dim / groupSize;
  const one = { codes: new Uint8Array(dim), scales: new Float32Array(groups) };
  const makeRow = rowMaker(subject, making);
  const looksAtScales = found.scales !== undefined && making.given === undefined;
  return rows.every((row) => {
    makeRow(row, one, 0);
    const at = place ? place[row] : row;
    for (let i = 0; i < dim; i++) if (one.codes[i] !== found.codes[at * dim + i]) return false;
    return !looksAtScales || one.scales.every((scale, i) => sameScale(scale, found.scales![at * groups + i]));
  });
}

/** In the order in which a kernel takes them. */
const steps = ['scale', 'quotient', 'cast'] as const;

/** Two dialects at once, of two steps. */
function together(a: CodeDialect, b: CodeDialect): CodeDialect {
  return {
    name: `${a.name} + ${b.name}`, summary: `${a.summary}; and ${b.summary}`, source: `${a.source}; ${b.source}`, step: b.step,
    ways: (right, subject) => a.ways(right, subject).flatMap((way) => b.ways(way, subject)),
  };
}

const pairs: readonly CodeDialect[] = steps.flatMap((step, i) =>
  codeDialects.filter((a) => a.step === step).flatMap((a) => codeDialects.filter((b) => steps.indexOf(b.step as (typeof steps)[number]) > i).map((b) => together(a, b))));

/** All steps as another recipe has them: what is asked for may be the wrong one. */
function otherRecipes({ format, given, recipe }: Subject): CodeDialect[] {
  if (given) return [];
  const others = Object.values(recipes as { readonly [name: string]: Recipe }).filter((other) => other.name !== recipe.name && computes(other, format));
  return others.map((other) => ({
    name: `recipe ${other.name}`, summary: `scales and codes are those of the recipe ${other.name}`, source: 'docs/policies.md', step: 'rows',
    ways: (_, subject) => [rightMaking({ ...subject, recipe: other })],
  }));
}

/** The dialect that comes nearest: it makes at least half of what differs, and changes next to nothing that does not. */
function nearest(subject: Subject, right: Making, wrong: Differences): Explanation['most'] {
  const count = wrong.codes.length + wrong.scales.length;
  let most: Explanation['most'];
  for (const { name, summary, source, ways } of codeDialects) {
    for (const way of ways(right, subject)) {
      const each = fit(make(subject, way), subject.found, wrong);
      if (2 * each.explained < count || 10 * each.contradicted > each.explained || each.explained === 0) continue;
      if (most === undefined || each.explained - each.contradicted > most.explained - most.contradicted) most = { name, summary, source, ...each };
    }
  }
  return most;
}

/** @internal which dialects make what was found, of a subject that differs in some places */
export function explain(subject: Subject, wrong: Differences): Explanation {
  const right = rightMaking(subject);
  const rows = rowsByDoubt(subject, wrong);
  const among = (candidates: readonly CodeDialect[]): Dialect[] =>
    candidates.filter(({ ways }) => ways(right, subject).some((way) => makesAll(subject, way, rows))).map(({ name, summary, source }) => ({ name, summary, source }));
  const single = among(codeDialects);
  if (single.length > 0) return { all: single };
  const recipe = among(otherRecipes(subject));
  if (recipe.length > 0) return { all: recipe };
  // One place that differs is no evidence for two faults.
  const double = wrong.codes.length + wrong.scales.length > 1 ? among(pairs) : [];
  return double.length > 0 ? { all: double } : { all: [], most: nearest(subject, right, wrong) };
}
