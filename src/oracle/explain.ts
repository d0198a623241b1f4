/** What differs between what was found and what ought to be, and which dialect it is. */
import { codeDialects, type Dialect } from './dialects.js';
import { make, rightMaking, type Subject, type Tensors } from './making.js';

/** All dialects that a check knows. */
export const dialects: readonly Dialect[] = codeDialects.map(({ name, summary, source }) => Object.freeze({ name, summary, source }));

/** The dialects that explain a difference. */
export interface Explanation {
  /** Those that make all that was found; empty where none does. */
  readonly all: readonly Dialect[];
  /** Where none does, the one that makes the most of what differs. */
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

const gain = (each: { explained: number; contradicted: number } | undefined): number => (each ? each.explained - each.contradicted : 0);

/** @internal which dialects make what was found, of a subject that differs in some places */
export function explain(subject: Subject, wrong: Differences): Explanation {
  const right = rightMaking(subject);
  const count = wrong.codes.length + wrong.scales.length;
  const all: Dialect[] = [];
  let most: Explanation['most'];
  for (const { name, summary, source, ways } of codeDialects) {
    const fits = ways(right, subject).map((way) => fit(make(subject, way), subject.found, wrong));
    if (fits.some(({ explained, contradicted }) => explained === count && contradicted === 0)) all.push({ name, summary, source });
    for (const each of fits) if (gain(each) > gain(most)) most = { name, summary, source, ...each };
  }
  return all.length > 0 ? { all } : { all, most };
}
