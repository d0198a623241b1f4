/** Append's parameters, checked once for every backend. */
import { int32 } from './attention.js';
import type { AppendCall, AppendStatus, Pages, PerSide, RequantizeCall } from './backend.js';
import { countNaN, floatDtypeOf, formats, type FloatArray, type FloatDtype } from './formats.js';
import { checkInteger, type PageLayout, type SideLayout } from './layout.js';
import { checkOptions, type OptionNames } from './options.js';
import { checkPolicy } from './policies.js';
import { resolveRecipe, withScalePrecision, type Recipe } from './recipe.js';
import { checkGivenScale, type GivenScale, type GivenScales } from './scale.js';

/** Whether a setting is one for each side, not one for both. */
export function isPerSide<T>(setting: PerSide<T>): setting is { readonly k: T; readonly v: T } {
  return typeof setting === 'object' && setting !== null && ('k' in setting || 'v' in setting);
}

/** The setting of one side. */
export function sideOf<T>(setting: PerSide<T>, side: 'k' | 'v'): T {
  return isPerSide(setting) ? setting[side] : setting;
}

/** A checked call. */
export interface AppendPlan {
  readonly dtype: FloatDtype;
  readonly kRecipe: Recipe;
  readonly vRecipe: Recipe;
  readonly kScale: GivenScales;
  readonly vScale: GivenScales;
  readonly slotMapping: Int32Array;
  readonly status: AppendStatus;
}

/** A checked call whose tokens come from pages. */
export interface RequantizePlan extends AppendPlan {
  readonly fromPages: Int32Array;
}

const copyOf = (scales: GivenScales): GivenScales => ({ ...scales, values: scales.values.slice() });

/** The same with arrays of its own: what a call that has to wait keeps, since its caller's may change meanwhile. */
export const ownPlan = <P extends AppendPlan>(plan: P): P => ({ ...plan, slotMapping: plan.slotMapping.slice(), kScale: copyOf(plan.kScale), vScale: copyOf(plan.vScale) });

/** Finds slots that are named twice: each slot remembers the last call that wrote to it. */
export class SlotMarks {
  readonly #lastCall: Uint32Array;
  #call = 0;

  constructor(slots: number) {
    this.#lastCall = new Uint32Array(slots);
  }

  /**
   * How many tokens the mapping skips.
   * @throws RangeError for a slot beyond the pages, or one that is named twice
   */
  check(slotMapping: Int32Array): number {
    const slots = this.#lastCall.length;
    if (++this.#call > 0xffffffff) {
      this.#lastCall.fill(0);
      this.#call = 1;
    }
    let skipped = 0;
    for (let i = 0; i < slotMapping.length; i++) {
      const slot = slotMapping[i];
      if (slot < 0) {
        skipped++;
        continue;
      }
      if (slot >= slots) throw new RangeError(`"slotMapping[${i}]" expected a slot below ${slots}, got ${slot}`);
      if (this.#lastCall[slot] === this.#call) throw new RangeError(`"slotMapping[${i}]" expected a slot that no other token has, got ${slot} again`);
      this.#lastCall[slot] = this.#call;
    }
    return skipped;
  }
}

/** NaN among the tokens that are not skipped, of `floats` elements each. */
function countStoredNaN(values: FloatArray, dtype: FloatDtype, slotMapping: Int32Array, floats: number): number {
  let nan = 0;
  for (let token = 0; token < slotMapping.length; token++) if (slotMapping[token] >= 0) nan += countNaN(values, dtype, token * floats, (token + 1) * floats);
  return nan;
}

/** Keys or values that lie where their number of elements does not show. */
interface Elsewhere {
  readonly dtype: FloatDtype;
}

/** How keys and values become codes, whatever they lie in. */
export type QuantizePlan = Pick<AppendPlan, 'kRecipe' | 'vRecipe' | 'kScale' | 'vScale'>;

/**
 * The recipe of one side, checked. One that computes no scale passes by, but for what is wrong with it in itself.
 * @throws TypeError or RangeError naming the argument that does not fit
 */
export function recipeOf({ recipe, scalePrecision }: Pick<AppendCall, 'recipe' | 'scalePrecision'>, layout: SideLayout, side: 'k' | 'v'): Recipe {
  const resolved = resolveRecipe(recipe && sideOf(recipe, side));
  checkPolicy(layout, side, resolved);
  return withScalePrecision(resolved, scalePrecision && sideOf(scalePrecision, side));
}

/**
 * The given scales of one side for appends: f16 and f32 are stored as they come, and a scale would be lost.
 * @throws TypeError or RangeError naming the argument that does not fit
 */
export function checkAppendScale(scale: GivenScale | undefined, side: SideLayout, layout: PageLayout, argument: string): GivenScales {
  const checked = checkGivenScale(scale, side, layout, argument);
  const [first] = checked.values;
  if (!formats[side.format].quantized && first !== 1) throw new RangeError(`"${argument}" expected 1 for ${side.format}, which is stored unscaled, got ${first}`);
  return checked;
}

/** @throws TypeError or RangeError naming the argument that does not fit */
export function planQuantize(call: Pick<AppendCall, 'recipe' | 'scalePrecision' | 'kScale' | 'vScale'>, layout: PageLayout): QuantizePlan {
  return {
    kRecipe: recipeOf(call, layout.k, 'k'),
    vRecipe: recipeOf(call, layout.v, 'v'),
    kScale: checkAppendScale(call.kScale, layout.k, layout, 'kScale'),
    vScale: checkAppendScale(call.vScale, layout.v, layout, 'vScale'),
  };
}

const callNames: OptionNames<AppendCall> = { pages: true, key: true, value: true, dtype: true, slotMapping: true, recipe: true, scalePrecision: true, kScale: true, vScale: true };

/**
 * @param elsewhere says of keys or values whether they lie in no typed array; then they are checked where they are bound
 * @throws TypeError or RangeError naming the argument that does not fit
 */
export function planAppend<T = never>(
  call: Omit<AppendCall, 'key' | 'value'> & { readonly key: FloatArray | T; readonly value: FloatArray | T },
  marks: SlotMarks,
  elsewhere: (input: FloatArray | T) => Elsewhere | undefined = () => undefined,
): AppendPlan {
  checkOptions<object>(call, 'call', callNames);
  const { layout } = call.pages;
  const dtypeOf = (argument: 'key' | 'value'): FloatDtype => elsewhere(call[argument])?.dtype ?? floatDtypeOf(call[argument] as FloatArray, call.dtype, argument);
  const dtype = dtypeOf('key');
  if (dtypeOf('value') !== dtype) throw new TypeError(`"value" expected the dtype of "key" (${dtype})`);
  const slotMapping = int32(call.slotMapping, 'slotMapping');
  const tokens = slotMapping.length;
  const expected = tokens * layout.kvHeads * layout.headDim;
  for (const argument of ['key', 'value'] as const) {
    if (elsewhere(call[argument])) continue;
    const { length } = call[argument] as FloatArray;
    if (length !== expected) throw new RangeError(`"${argument}" expected ${tokens} tokens × ${layout.kvHeads} heads × ${layout.headDim} = ${expected} elements, got ${length}`);
  }
  const { kRecipe, vRecipe, kScale, vScale } = planQuantize(call, layout);
  const skipped = marks.check(slotMapping);
  const integers = ([['k', 'key'], ['v', 'value']] as const).filter(([side]) => layout[side].format === 'int8').map(([, argument]) => call[argument]);
  const status: AppendStatus = { written: tokens - skipped, skipped };
  if (integers.length === 0 || integers.some((input) => elsewhere(input))) return { dtype, kRecipe, vRecipe, kScale, vScale, slotMapping, status };
  const nan = integers.reduce<number>((sum, input) => sum + countStoredNaN(input as FloatArray, dtype, slotMapping, layout.kvHeads * layout.headDim), 0);
  return { dtype, kRecipe, vRecipe, kScale, vScale, slotMapping, status: { ...status, nan } };
}

/** The dtype of tokens in pages. @throws TypeError or RangeError unless they can be quantized from there into pages of this layout */
function checkFrom({ layout: { order, k, v, ...shape } }: Pages, layout: PageLayout): FloatDtype {
  const { format } = k;
  if ((format !== 'f16' && format !== 'f32') || v.format !== format) throw new TypeError(`"from" expected pages of f16 or of f32, keys and values alike, got ${format} and ${v.format}`);
  if (order !== 'NHD') throw new TypeError(`"from" expected pages of order NHD, got ${order}`);
  for (const name of ['kvHeads', 'headDim'] as const) {
    if (shape[name] !== layout[name]) throw new RangeError(`"from" expected pages with ${name} ${layout[name]}, as "pages", got ${shape[name]}`);
  }
  return format;
}

/** @throws TypeError or RangeError naming the argument that does not fit */
export function planRequantize(call: RequantizeCall, marks: SlotMarks): RequantizePlan {
  const { from, pages, slotMapping, recipe, scalePrecision, kScale, vScale } = call;
  const dtype = checkFrom(from, pages.layout);
  if (from === pages) throw new TypeError('"from" expected other pages than "pages": what is written there may have to be read yet');
  const fromPages = Int32Array.from(call.fromPages, (page, i) => checkInteger(page, `fromPages[${i}]`, 0, from.count - 1));
  const tokens = fromPages.length * from.layout.blockSize;
  const { length } = int32(slotMapping, 'slotMapping');
  if (length !== tokens) throw new RangeError(`"slotMapping" expected ${fromPages.length} pages × ${from.layout.blockSize} tokens = ${tokens} slots, got ${length}`);
  return { ...planAppend({ pages, key: from, value: from, slotMapping, recipe, scalePrecision, kScale, vScale }, marks, () => ({ dtype })), fromPages };
}
