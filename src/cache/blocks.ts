/**
 * Which page belongs to whom: a free list and a count of owners per page. Knows nothing of bytes.
 *
 * A page may have a key, by which it is found again. Such a page stays when its last owner goes: it can be taken like a free
 * one, and then the one that nobody has owned for longest goes first.
 */
export class BlockPool {
  readonly #free: Int32Array;
  #freeCount = 0;
  readonly #owners: Int32Array;
  readonly #keys = new Map<number, string>();
  readonly #pages = new Map<string, number>();
  /** Pages with a key and no owner, in the order in which they lost their last. */
  readonly #ownerless = new Set<number>();

  /**
   * @param lists the pages of each owner
   * @param evicted is told of a page with a key that is taken for something else, while its contents are still there
   */
  constructor(
    count: number,
    lists: Iterable<readonly number[]> = [],
    private readonly evicted: (page: number, key: string) => void = () => {},
  ) {
    this.#free = new Int32Array(count);
    this.#owners = new Int32Array(count);
    for (const pages of lists) for (const page of pages) this.#owners[page]++;
    for (let page = count - 1; page >= 0; page--) if (this.#owners[page] === 0) this.#free[this.#freeCount++] = page;
  }

  /** Pages that can be taken. */
  get free(): number {
    return this.#freeCount + this.#ownerless.size;
  }

  /** A page with one owner. The caller has made sure that one is free. */
  take(): number {
    const page = this.#freeCount > 0 ? this.#free[--this.#freeCount] : this.#evict();
    this.#owners[page] = 1;
    return page;
  }

  #evict(): number {
    const [page] = this.#ownerless;
    const key = this.#keys.get(page)!;
    this.#ownerless.delete(page);
    this.forget(page);
    this.evicted(page, key);
    return page;
  }

  share(page: number): void {
    if (this.#owners[page]++ === 0) this.#ownerless.delete(page);
  }

  /** One owner more for each. */
  shareAll(pages: Iterable<number>): void {
    for (const page of pages) this.share(page);
  }

  isShared(page: number): boolean {
    return this.#owners[page] > 1;
  }

  /** One owner less; without owners the page can be taken again. */
  release(page: number): void {
    if (--this.#owners[page] > 0) return;
    if (this.#keys.has(page)) this.#ownerless.add(page);
    else this.#free[this.#freeCount++] = page;
  }

  /** The pages of one owner. The last go first: without those before them they are of no use, and so the first to be taken. */
  releaseAll(pages: readonly number[]): void {
    for (let i = pages.length - 1; i >= 0; i--) this.release(pages[i]);
  }

  /** The page that has this key. */
  find(key: string): number | undefined {
    return this.#pages.get(key);
  }

  /**
   * Gives an owned page its key, unless another page that somebody owns has that: then nothing is to be gained. One that nobody
   * owns would go before this, and the key with it, so this takes its place. A page has one key: of a second, which only a
   * snapshot can say that it has, nobody would know when the page is taken.
   */
  keep(page: number, key: string): void {
    if (this.#keys.has(page)) return;
    const other = this.#pages.get(key);
    if (other !== undefined) {
      if (!this.#ownerless.delete(other)) return;
      this.forget(other);
      this.#free[this.#freeCount++] = other;
    }
    this.#pages.set(key, page);
    this.#keys.set(page, key);
  }

  /** The page will hold something else: it has no key any more. */
  forget(page: number): void {
    const key = this.#keys.get(page);
    if (key === undefined) return;
    this.#keys.delete(page);
    this.#pages.delete(key);
  }
}
