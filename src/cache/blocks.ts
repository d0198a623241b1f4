/** Which page belongs to whom: a free list and a count of owners per page. Knows nothing of bytes. */
export class BlockPool {
  readonly #free: Int32Array;
  #freeCount: number;
  readonly #owners: Int32Array;

  constructor(count: number) {
    this.#free = Int32Array.from({ length: count }, (_, i) => count - 1 - i);
    this.#freeCount = count;
    this.#owners = new Int32Array(count);
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
