/** Which format, granularity and recipe go together: facts, the one table that follows from them, and the one check that asks it. */
import { describe, formats, type Format } from './formats.js';
import type { Granularity } from './layout.js';
import { recipes, type Recipe, type RecipeName } from './recipe.js';

interface GranularityFacts {
  /** Given to each call, or computed on write and kept in the page. */
  readonly scales: 'given' | 'computed';
  /** Of the scales of one side of a layer. */
  readonly shape: string;
}

export const granularities: { readonly [G in Granularity]: GranularityFacts } = {
  tensor: { scales: 'given', shape: '[1]' },
  head: { scales: 'given', shape: '[kvHeads]' },
  channel: { scales: 'given', shape: '[kvHeads, headDim]' },
  'token-head': { scales: 'computed', shape: '[pages, kvHeads, blockSize]' },
  group: { scales: 'computed', shape: '[pages, kvHeads, headDim / groupSize, blockSize]' },
};

/** Whether scales are given to each call, and not computed on write. */
export const isGiven = (granularity: Granularity): boolean => granularities[granularity].scales === 'given';

/** A way to store keys or values. */
export interface Policy {
  /** How an element is stored. */
  readonly format: Format;
  /** What shares a scale. */
  readonly granularity: Granularity;
  /** `none`: values are stored as they are. */
  readonly scales: 'none' | 'given' | 'computed';
  /** Of the scales of one side of a layer; empty where there are none. */
  readonly shape: string;
  /** The named recipes that can compute the scales. Empty where none are computed: a recipe has nothing to say there. */
  readonly recipes: readonly RecipeName[];
}

/** Whether the recipe says how codes of this format come about. */
export function computes({ int8, int8Only }: Recipe, format: Format): boolean {
  return format === 'int8' ? int8 !== undefined : formats[format].quantized && !int8Only;
}

const recipesFor = (format: Format): RecipeName[] => (Object.keys(recipes) as RecipeName[]).filter((name) => computes(recipes[name], format));

/** @returns undefined where the two do not go together */
function policyOf(format: Format, granularity: Granularity): Policy | undefined {
  // Without a scale there is nothing to share; `tensor` is the name that says no more than that.
  if (!formats[format].quantized) return granularity === 'tensor' ? Object.freeze({ format, granularity, scales: 'none', shape: '', recipes: Object.freeze([]) }) : undefined;
  const { scales, shape } = granularities[granularity];
  return Object.freeze({ format, granularity, scales, shape, recipes: Object.freeze(scales === 'computed' ? recipesFor(format) : []) });
}

const policies: readonly Policy[] = Object.freeze(
  (Object.keys(formats) as Format[]).flatMap((format) => (Object.keys(granularities) as Granularity[]).flatMap((granularity) => policyOf(format, granularity) ?? [])),
);

/** All that is allowed, for keys and for values; what is not in this list is refused. Keys and values need not have the same. */
export const allowedPolicies = (): readonly Policy[] => policies;

/** The same by name, for checks that every call makes. */
const table = Object.fromEntries(
  (Object.keys(formats) as Format[]).map((format) => [format, Object.fromEntries(policies.filter((policy) => policy.format === format).map((policy) => [policy.granularity, policy]))]),
) as { readonly [F in Format]: { readonly [G in Granularity]?: Policy } };

/**
 * Whether format, granularity and recipe go together. A recipe passes by where no scales are computed.
 * @param side whose granularity it is, for the error
 * @throws TypeError that says what to ask for instead
 */
export function checkPolicy({ format, granularity }: Pick<Policy, 'format' | 'granularity'>, side: 'k' | 'v', recipe?: Recipe): void {
  if (!Object.hasOwn(granularities, granularity)) throw new TypeError(`"${side}.granularity" expected one of ${Object.keys(granularities).join(', ')}, got ${describe(granularity)}`);
  const policy = table[format][granularity];
  if (policy === undefined) throw new TypeError(`"${side}.granularity" expected ${Object.keys(table[format]).join(' or ')} for ${format}, which carries no scales, got ${granularity}`);
  if (recipe === undefined || policy.scales !== 'computed' || computes(recipe, format)) return;
  throw new TypeError(`"recipe" expected ${policy.recipes.join(', ')} for ${format}, got ${recipe.name}`);
}
