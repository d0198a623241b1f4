/** The pages of a group: objects that say who holds them and what is in them. */

/** A page of all layers of a group. */
export class PlainPage {
  /** Ids of the tokens at its places. */
  readonly holds: (number | undefined)[];
  /** Sequences, and steps that have taken it. */
  readonly holders = new Set<object>();
  /** All tokens up to its last, by which it is found. */
  key: string | undefined;
  /** When its last holder let it go. */
  since = 0;

  /** @param number the cache's, once it can be seen */
  constructor(
    holds: readonly (number | undefined)[],
    public number?: number,
  ) {
    this.holds = [...holds];
  }

  get isShared(): boolean {
    return this.holders.size > 1;
  }
}

export class PlainPool {
  /** Those that are held, and those that are kept for their keys. */
  readonly pages = new Set<PlainPage>();
  #clock = 0;

  constructor(
    readonly count: number,
    private readonly evicted: (page: PlainPage) => void,
  ) {}

  get free(): number {
    return this.count - [...this.pages].filter(({ holders }) => holders.size > 0).length;
  }

  /** Pages that nobody holds, and that can be found. */
  get kept(): PlainPage[] {
    return [...this.pages].filter(({ holders }) => holders.size === 0);
  }

  take(holder: object): PlainPage {
    if (this.pages.size === this.count) {
      const oldest = this.kept.reduce((one, other) => (one.since < other.since ? one : other));
      this.pages.delete(oldest);
      this.evicted(oldest);
    }
    return this.add(new PlainPage([]), holder);
  }

  add(page: PlainPage, holder: object): PlainPage {
    page.holders.add(holder);
    this.pages.add(page);
    return page;
  }

  find(key: string): PlainPage | undefined {
    return [...this.pages].find((page) => page.key === key);
  }

  /** A key is that of a page which somebody holds, if there is one: in place of a page that nobody does. */
  keep(page: PlainPage, key: string): void {
    const there = this.find(key);
    if (there && there.holders.size > 0) return;
    if (there) this.pages.delete(there);
    page.key = key;
  }

  /** The last page first, so that it is the first to go. */
  release(pages: readonly PlainPage[], holder: object): void {
    for (const page of [...pages].reverse()) {
      if (!page.holders.delete(holder)) throw new Error('the model released a page that was not held');
      if (page.holders.size > 0) continue;
      page.since = ++this.#clock;
      if (page.key === undefined) this.pages.delete(page);
    }
  }
}
