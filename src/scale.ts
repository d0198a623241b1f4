import { describe } from './formats.js';
import type { SideLayout } from './layout.js';

/**
 * A given scale as f32.
 * @throws RangeError for 0 (also by underflow), negative, infinite or NaN
 */
export function checkScale(scale: number, argument: string): number {
  const rounded = Math.fround(scale);
  if (!(rounded > 0 && rounded < Infinity)) throw new RangeError(`"${argument}" expected a finite scale greater than 0, got ${describe(scale)}`);
  return rounded;
}

/**
 * The given scale of one side: 1 where none is stated.
 * @throws TypeError where the pages hold scales of their own
 */
export function checkGivenScale(scale: number | undefined, side: SideLayout, argument: string): number {
  if (scale === undefined) return 1;
  if (side.granularity !== 'tensor') throw new TypeError(`"${argument}" expected to be absent: the pages hold a scale per token and head`);
  return checkScale(scale, argument);
}
