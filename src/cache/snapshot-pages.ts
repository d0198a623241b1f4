/** Which pages of a group are to hold which rows of a snapshot: sequences that have the same rows at the same places share them. */
import { OutOfPagesError } from '../errors.js';
import type { SnapshotHeld } from '../files/snapshot-head.js';
import { holdsNothing, type Held, type PageGroup } from './groups.js';

/** A page before and after it has a number. */
export interface PlannedPage {
  /** The row of each place, −1 where there is none. */
  readonly rows: Float64Array;
  /** −1 until it is taken. */
  page: number;
}

/** Finds the rows of positions that are asked for in ascending order. */
class Rows {
  #run = 0;
  #begin = 0;

  constructor(private readonly runs: SnapshotHeld['runs']) {}

  at(position: number): number {
    while (position - this.#begin >= this.runs[this.#run][1]) this.#begin += this.runs[this.#run++][1];
    return this.runs[this.#run][0] + position - this.#begin;
  }
}

/** Whether one page can have both. */
const fit = (a: Float64Array, b: Float64Array): boolean => a.every((row, place) => row < 0 || b[place] < 0 || row === b[place]);

/** The first and the last place that has a row: an end is what a sequence was cut at, or grew from. */
function* endsOf(rows: Float64Array): Generator<number> {
  const first = rows.findIndex((row) => row >= 0);
  if (first < 0) return;
  yield first;
  let last = rows.length - 1;
  while (rows[last] < 0) last--;
  if (last > first) yield last;
}

/** Places by whose rows a page is found again. Of a ring's page sequences may have lost others at either end. */
const namesOf = (rows: Float64Array, isRing: boolean): string[] => {
  const places = isRing ? rows.keys() : endsOf(rows);
  return [...places].flatMap((place) => (rows[place] < 0 ? [] : [`${rows[place]} ${place}`]));
};

/** The pages of one group. */
export class PagePlan {
  readonly pages: PlannedPage[] = [];
  readonly #held: { readonly held: Held; readonly pages: readonly PlannedPage[] }[] = [];
  /** By row and place, those of {@link namesOf}. */
  readonly #found = new Map<string, PlannedPage>();

  constructor(readonly group: PageGroup) {}

  /**
   * Plans a sequence. A ring keeps what it has room for.
   * @throws OutOfPagesError for more pages than there are, whoever has them
   */
  add(source: SnapshotHeld): void {
    const { group } = this;
    const floor = group.kind === 'ring' ? Math.max(source.floor, source.end - group.capacity) : source.floor;
    const held: Held = { ...holdsNothing, floor, end: source.end };
    const count = group.pagesFor(held, held.end);
    this.#check(count, group.pageCount);
    const wanted = Array.from({ length: count }, () => new Float64Array(group.blockSize).fill(-1));
    const rows = new Rows(source.runs);
    for (const [begin, end] of [[0, Math.min(group.sinkTokens, floor)], [floor, source.end]]) {
      for (const { token, page, place, count: tokens } of group.runs(held, begin, end)) {
        const position = token < source.sinks ? token : source.sinks + token - source.floor;
        for (let i = 0; i < tokens; i++) wanted[page][place + i] = rows.at(position + i);
      }
    }
    this.#held.push({ held, pages: wanted.map((each) => this.#pageFor(each)) });
    this.#check(this.pages.length, group.pageCount);
  }

  #check(need: number, have: number): void {
    if (need > have) throw new OutOfPagesError(need, have, undefined, 'the snapshot', this.group.kind === 'all' ? undefined : 'more "sequences"');
  }

  #pageFor(wanted: Float64Array): PlannedPage {
    const names = namesOf(wanted, this.group.kind === 'ring');
    let page = names.map((name) => this.#found.get(name)).find((found) => found && fit(found.rows, wanted));
    if (page) wanted.forEach((row, place) => (page!.rows[place] = Math.max(page!.rows[place], row)));
    else this.pages.push((page = { rows: wanted, page: -1 }));
    for (const name of names) this.#found.set(name, page);
    return page;
  }

  /** @throws OutOfPagesError unless there are as many as are needed */
  checkFree(): void {
    this.#check(this.pages.length, this.group.pool.free);
  }

  /** Takes the pages. @returns what each sequence then holds */
  take(): Held[] {
    const { pool } = this.group;
    return this.#held.map(({ held, pages }) => {
      for (const each of pages) {
        if (each.page < 0) each.page = pool.take();
        else pool.share(each.page);
      }
      return { ...held, pages: pages.map(({ page }) => page) };
    });
  }
}
