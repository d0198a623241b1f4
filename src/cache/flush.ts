/** Tokens that leave the residual in a step: which pages they are in, and where they go. */
import type { PageGroup } from './groups.js';
import type { Reservation } from './step.js';

export interface Flush {
  /** Pages of the residual, all of their tokens. */
  readonly fromPages: readonly number[];
  /** `[pages · blockSize of the residual]`: slots of a group of quantized tokens; −1 for what is no token. */
  slotMapping(group: number): Int32Array;
}

/** @returns undefined where none leaves */
export function flushOf(groups: readonly PageGroup[], reservations: readonly Reservation[]): Flush | undefined {
  const residual = groups.findIndex(({ kind }) => kind === 'residual');
  if (residual < 0) return undefined;
  const { blockSize } = groups[residual];
  const leaving = reservations.flatMap((reservation) => {
    const { before, after } = reservation.groups[residual];
    const end = Math.min(after.floor, before.end);
    const pages = before.pages.slice(0, Math.max(0, Math.ceil((end - before.floor) / blockSize)));
    return pages.length === 0 ? [] : [{ reservation, first: before.floor, end, pages }];
  });
  if (leaving.length === 0) return undefined;
  const fromPages = leaving.flatMap(({ pages }) => pages);
  const slots = (group: number): Int32Array => Int32Array.from(leaving.flatMap(({ reservation, first, end, pages }) => {
    const { after } = reservation.groups[group];
    return Array.from({ length: pages.length * blockSize }, (_, i) => (first + i < end ? groups[group].slotOf(after, first + i) : -1));
  }));
  const made = new Map<number, Int32Array>();
  return {
    fromPages,
    slotMapping: (group) => {
      const slotMapping = made.get(group) ?? slots(group);
      made.set(group, slotMapping);
      return slotMapping;
    },
  };
}
