/** Which page belongs to whom: a free list and a count of owners per page. Knows nothing of bytes. */
export class BlockPool {
  readonly #free: Int32Array;
  #freeCount = 0;
  readonly #owners: Int32Array;

  /** @param lists the pages of each owner */
  constructor(count: number, lists: Iterable<readonly number[]> = []) {
    this.#free = new Int32Array(count);
    this.#owners = new Int32Array(count);
    for (const pages of lists) for (const page of pages) this.#owners[page]++;
    for (let page = count - 1; page >= 0; page--) if (this.#owners[page] === 0) this.#free[this.#freeCount++] = page;
  }

  get free(): number {
    return this.#freeCount;
  }

  /** A page with one owner. The caller has made sure that one is free. */
  take(): number {
    const page = this.#free[--this.#freeCount];
    this.#owners[page] = 1;
    return page;
  }

  share(page: number): void {
    this.#owners[page]++;
  }

  isShared(page: number): boolean {
    return this.#owners[page] > 1;
  }

  /** One owner less; without owners the page is free again. */
  release(page: number): void {
    if (--this.#owners[page] === 0) this.#free[this.#freeCount++] = page;
  }
}
