/**
 * Layers that keep the same tokens in the same places form a group: a page of a group means the same tokens in all its layers.
 * A group says where tokens go, and takes and gives back pages; it knows of no layer's contents.
 *
 * ```
 * all tokens   token t is at t
 * ring         of `ringPages` pages: token t is at t − sinkTokens, and overwrites what was there before; the first sinkTokens
 *              have pages of their own, before the ring's
 * residual     token t is at t − floor: pages leave it at its front
 * ```
 */
import type { BlockPool } from './blocks.js';

/** What a sequence holds in a group: never changed, only replaced. */
export interface Held {
  readonly pages: readonly number[];
  /** Tokens from `floor` to `end` − 1 are there; in a ring also the first sinkTokens, as far as there are so many. */
  readonly floor: number;
  readonly end: number;
}

export const holdsNothing: Held = Object.freeze({ pages: Object.freeze([]), floor: 0, end: 0 });

/** What a group is like. */
export interface GroupShape {
  readonly kind: 'all' | 'ring' | 'residual';
  readonly blockSize: number;
  readonly pageCount: number;
  /** Tokens of a sequence that are kept, at most, the first sinkTokens not counted: of a ring, else Infinity. */
  readonly capacity: number;
  /** Of a ring: tokens that a row can see, itself included, beside the first sinkTokens. */
  readonly window: number;
  readonly sinkTokens: number;
  /** Whether tokens come only when they leave the residual. */
  readonly late: boolean;
}

/** What a step has reserved for one sequence. */
export interface GroupReservation {
  readonly before: Held;
  /** Once the step is committed. */
  readonly after: Held;
  /** Pages taken for this step: given back where it is aborted. */
  readonly taken: readonly number[];
  /** Pages that the sequence will hold no more: given back where it is committed. */
  readonly left: readonly number[];
  /** Pages that others hold too, and what takes their place: what was in the first must be copied to the second. */
  readonly copies: readonly (readonly [from: number, to: number])[];
}

/** Tokens that a step is about to write: those from `begin` to `end` − 1; before `floor` nothing is kept. */
export interface Growth {
  readonly floor: number;
  readonly begin: number;
  readonly end: number;
}

/** Tokens that follow each other in one of a sequence's pages. */
export interface TokenRun {
  /** The first of them, and its place in the page. */
  readonly token: number;
  readonly place: number;
  /** Which of the sequence's pages. */
  readonly page: number;
  readonly count: number;
}

export class PageGroup {
  readonly kind: GroupShape['kind'];
  readonly blockSize: number;
  readonly pageCount: number;
  readonly capacity: number;
  readonly window: number;
  readonly sinkTokens: number;
  readonly late: boolean;
  /** Pages that the first sinkTokens take, and pages of the ring. */
  readonly sinkPages: number;
  readonly ringPages: number;
  /** Replaced with the pages themselves. */
  pool: BlockPool;

  constructor(shape: GroupShape, pool: BlockPool) {
    this.kind = shape.kind;
    this.blockSize = shape.blockSize;
    this.pageCount = shape.pageCount;
    this.capacity = shape.capacity;
    this.window = shape.window;
    this.sinkTokens = shape.sinkTokens;
    this.late = shape.late;
    this.sinkPages = Math.ceil(shape.sinkTokens / shape.blockSize);
    this.ringPages = shape.kind === 'ring' ? Math.ceil(shape.capacity / shape.blockSize) : 0;
    this.pool = pool;
  }

  /** The token that the page after the sinks' begins with. */
  start({ floor }: Held): number {
    return this.kind === 'residual' ? floor : this.sinkTokens;
  }

  /** Which of a sequence's pages has a token. */
  pageOf(held: Held, token: number): number {
    if (token < this.sinkTokens) return Math.floor(token / this.blockSize);
    const block = Math.floor((token - this.start(held)) / this.blockSize);
    return this.sinkPages + (this.kind === 'ring' ? block % this.ringPages : block);
  }

  /** Its place in that page. */
  placeOf(held: Held, token: number): number {
    return (token < this.sinkTokens ? token : token - this.start(held)) % this.blockSize;
  }

  /** Whether a token is kept: −1 takes the place of the slot of one that is not. */
  slotOf(held: Held, token: number): number {
    if (token >= this.sinkTokens && token < held.floor) return -1;
    return held.pages[this.pageOf(held, token)] * this.blockSize + this.placeOf(held, token);
  }

  /** The end of the run of tokens that begins with `token` and lies in one page. */
  #runEnd(held: Held, token: number, end: number): number {
    const sinkEnd = token < this.sinkTokens ? this.sinkTokens : Infinity;
    return Math.min(end, sinkEnd, token + this.blockSize - this.placeOf(held, token));
  }

  /** Where the tokens from `begin` to `end` − 1 lie, which are kept: runs of tokens that follow each other in one page. */
  *runs(held: Held, begin: number, end: number): Generator<TokenRun> {
    for (let token = begin; token < end; ) {
      const next = this.#runEnd(held, token, end);
      yield { token, page: this.pageOf(held, token), place: this.placeOf(held, token), count: next - token };
      token = next;
    }
  }

  /** What a sequence will hold once tokens up to `end` are there. */
  #floorAt(held: Held, end: number): number {
    return this.kind === 'ring' ? Math.max(held.floor, end - this.capacity) : held.floor;
  }

  /** What remains of a sequence's pages where tokens before `floor` leave the residual. */
  #remaining(held: Held, floor: number): Held {
    if (this.kind !== 'residual' || floor === held.floor) return held;
    // Beyond its end all leave it, and it begins anew.
    const pages = floor < held.end ? held.pages.slice((floor - held.floor) / this.blockSize) : [];
    return { pages, floor, end: Math.max(floor, held.end) };
  }

  /** Pages that tokens up to `end` lie in. */
  pagesFor(held: Held, end: number): number {
    if (end <= this.sinkTokens) return Math.ceil(end / this.blockSize);
    const blocks = Math.ceil((end - this.start(held)) / this.blockSize);
    return this.sinkPages + (this.kind === 'ring' ? Math.min(blocks, this.ringPages) : blocks);
  }

  /** Up to where tokens lie in pages that are held, and in none that those before them lie in: a ring comes round. */
  #heldEnd(held: Held, begin: number, end: number): number {
    if (this.kind !== 'ring') return Math.min(end, this.start(held) + held.pages.length * this.blockSize);
    const first = Math.max(begin, this.sinkTokens);
    return Math.min(end, first - this.placeOf(held, first) + this.ringPages * this.blockSize);
  }

  /** Pages that a step would take: new ones, and one for each that it writes into and others hold too. */
  pagesNeeded(before: Held, { floor, begin, end }: Growth): number {
    if (begin >= end) return 0;
    const held = this.#remaining(before, floor);
    let need = Math.max(0, this.pagesFor(held, end) - held.pages.length);
    const last = this.#heldEnd(held, begin, end);
    for (let token = begin; token < last; token = this.#runEnd(held, token, last)) {
      const page = held.pages[this.pageOf(held, token)];
      if (page !== undefined && this.pool.isShared(page)) need++;
    }
    return need;
  }

  /** Takes the pages that a step needs: {@link pagesNeeded}, and the caller has made sure that they are free. */
  reserve(before: Held, { floor, begin, end }: Growth): GroupReservation {
    const { pool } = this;
    const held = this.#remaining(before, floor);
    const left = before.pages.slice(0, before.pages.length - held.pages.length);
    const taken: number[] = [];
    const copies: (readonly [number, number])[] = [];
    let pages: number[] | undefined;
    for (let token = begin; token < end; token = this.#runEnd(held, token, end)) {
      const index = this.pageOf(held, token);
      const page = (pages ?? held.pages)[index];
      if (page === undefined || pool.isShared(page)) {
        const fresh = pool.take();
        taken.push(fresh);
        if (page !== undefined) {
          copies.push([page, fresh]);
          left.push(page);
        }
        // Most tokens of a decode go into the page of the one before: the list, which may be long, stays the same then.
        pages ??= held.pages.slice();
        pages[index] = fresh;
      } else {
        pool.forget(page);
      }
    }
    const after = { pages: pages ?? held.pages, floor: this.#floorAt(held, end), end };
    return { before, after, taken, left, copies };
  }

  /** The step is over: pages that the sequence holds no more go. */
  commit({ left }: GroupReservation): void {
    this.pool.releaseAll(left);
  }

  /**
   * The step is off.
   * @param written whether it has written: a ring then has lost what the new tokens took the place of. No later row sees that
   * @returns what the sequence holds
   */
  abort({ before, after, taken }: GroupReservation, written: boolean): Held {
    this.pool.releaseAll(taken);
    return written && this.kind === 'ring' ? { ...before, floor: Math.max(before.floor, after.floor) } : before;
  }

  share({ pages }: Held): void {
    this.pool.shareAll(pages);
  }

  release({ pages }: Held): void {
    this.pool.releaseAll(pages);
  }

  /** The shortest length, apart from its own, that a sequence can be cut to. */
  shortest({ floor }: Held): number {
    return this.kind === 'ring' && floor > 0 ? floor + this.window : 0;
  }

  /** Cuts a sequence: pages that held only what goes are given back. */
  truncate(held: Held, end: number): Held {
    if (end >= held.end) return held;
    const floor = Math.min(held.floor, end);
    const origin = { ...held, floor };
    const kept = Math.min(held.pages.length, this.pagesFor(origin, end));
    this.pool.releaseAll(held.pages.slice(kept));
    return { pages: held.pages.slice(0, kept), floor, end };
  }
}
