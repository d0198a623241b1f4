/** The plain model of a cache: sequences are lists of ids, and the documented rules say which pages hold which. */
import { PlainPage, PlainPool } from './pages.js';
import { locate, longestOf, quantizedNext, rulesOf, type GroupRule, type WorldShape } from './rules.js';

/** What a sequence has in a group. */
export interface Part {
  readonly pages: readonly PlainPage[];
  /** Of a residual: the token that its first page begins with. */
  readonly first: number;
  readonly end: number;
  /** The largest end that it ever had, where that was written. */
  readonly longest: number;
}

const nothing: Part = { pages: [], first: 0, end: 0, longest: 0 };

export class PlainSequence {
  tokens: readonly number[] = [];
  /** How many of the first tokens the cache knows by their ids. */
  known = 0;
  /** How many of its first pages can be found: also those that came out of a snapshot, which has no ids. */
  keyed = 0;
  due = false;
  parts: readonly Part[];
  step: PlainStep | undefined;

  constructor(groups: number) {
    this.parts = Array.from({ length: groups }, () => nothing);
  }
}

/** What a step does in a group for one sequence. */
interface Change {
  readonly after: Part;
  readonly taken: readonly PlainPage[];
  readonly left: readonly PlainPage[];
  readonly writes: readonly (readonly [page: PlainPage, place: number, id: number])[];
}

export interface PlainEntry {
  readonly sequence: PlainSequence;
  readonly added: readonly number[];
  readonly isKnown: boolean;
}

interface Planned extends PlainEntry {
  readonly due: boolean;
  readonly changes: readonly Change[];
}

export interface PlainStep {
  readonly entries: readonly Planned[];
  /** Layers that were appended to. */
  readonly appended: Set<number>;
}

export interface Shortage {
  readonly group: number;
  readonly need: number;
  readonly have: number;
}

/** Tokens that a step writes into a group: from `begin` to `end` − 1; a residual then begins with `first`. */
interface Growth {
  readonly first: number;
  readonly begin: number;
  readonly end: number;
}

export class PlainCache {
  readonly rules: readonly GroupRule[];
  readonly pools: readonly PlainPool[];
  readonly counters = { hits: 0, misses: 0, evictions: 0, fetched: 0 };
  /** Keys of pages that had to go. */
  readonly evicted = new Set<string>();
  sequences: PlainSequence[] = [];

  /** @param counts pages of each group */
  constructor(
    readonly shape: WorldShape,
    counts: readonly number[],
  ) {
    this.rules = rulesOf(shape);
    this.pools = this.rules.map((_, g) => new PlainPool(counts[g], ({ key }) => {
      this.counters.evictions++;
      this.evicted.add(key!);
    }));
  }

  create(): PlainSequence {
    const sequence = new PlainSequence(this.rules.length);
    this.sequences.push(sequence);
    return sequence;
  }

  fork({ tokens, known, keyed, due, parts }: PlainSequence): PlainSequence {
    const twin = this.create();
    Object.assign(twin, { tokens, known, keyed, due, parts });
    for (const { pages } of parts) for (const page of pages) page.holders.add(twin);
    return twin;
  }

  free(sequence: PlainSequence): void {
    for (const [g, { pages }] of sequence.parts.entries()) this.pools[g].release(pages, sequence);
    this.sequences = this.sequences.filter((each) => each !== sequence);
  }

  /** Whether a group still has a token of a sequence; `longest` that of a step that has written, too. */
  has(g: number, { first, end, longest }: Part, token: number): boolean {
    const { kind, capacity, sinkTokens } = this.rules[g];
    if (token >= end) return false;
    return kind === 'ring' ? token < sinkTokens || token >= longest - capacity : token >= first;
  }

  /** The shortest length, apart from its own, that a sequence can be cut to. */
  shortest({ parts }: PlainSequence): number {
    return Math.max(0, ...this.rules.map(({ kind, capacity, window }, g) => (kind === 'ring' && parts[g].longest > capacity ? parts[g].longest - (capacity - window) : 0)));
  }

  truncate(sequence: PlainSequence, length: number): void {
    if (length === sequence.tokens.length) return;
    sequence.parts = sequence.parts.map((part, g) => this.#cut(sequence, g, part, length));
    const residual = this.rules.findIndex(({ kind }) => kind === 'residual');
    if (residual < 0 || sequence.parts[residual].first === length) sequence.due = false;
    sequence.tokens = sequence.tokens.slice(0, length);
    sequence.known = Math.min(sequence.known, length);
    sequence.keyed = Math.min(sequence.keyed, Math.floor(length / this.shape.blockSize));
  }

  #cut(sequence: PlainSequence, g: number, part: Part, length: number): Part {
    if (length >= part.end) return part;
    const first = Math.min(part.first, length);
    let count = 0;
    for (let token = first; token < length; token++) count = Math.max(count, 1 + locate(this.rules[g], first, token)[0]);
    this.pools[g].release(part.pages.slice(count), sequence);
    return { ...part, pages: part.pages.slice(0, count), first, end: length };
  }

  /** What a step of so many tokens is to write into each group. */
  #growth({ tokens: { length }, parts, due }: PlainSequence, added: number): { due: boolean; growth: Growth[] } {
    const residual = this.rules.findIndex(({ kind }) => kind === 'residual');
    const end = length + added;
    const quantized = residual < 0 ? length : parts[residual].first;
    const next = residual < 0 || added === 0 ? { quantized, due } : quantizedNext(this.shape, { quantized, due }, length, added);
    const growth = this.rules.map(({ kind, late }): Growth => {
      if (kind === 'residual') return { first: next.quantized, begin: Math.max(length, next.quantized), end };
      return late ? { first: 0, begin: quantized, end: next.quantized } : { first: 0, begin: length, end };
    });
    return { due: next.due, growth };
  }

  /** The pages that stay, where a residual begins with another token. */
  #staying(g: number, { pages, first, end }: Part, growth: Growth): readonly PlainPage[] {
    if (this.rules[g].kind !== 'residual') return pages;
    if (growth.first >= end) return [];
    const [gone] = locate(this.rules[g], first, growth.first);
    return pages.slice(gone);
  }

  /** Numbers of the pages that a step writes into, each with whether it needs a fresh one. */
  #touched(g: number, part: Part, growth: Growth): Map<number, boolean> {
    const staying = this.#staying(g, part, growth);
    const touched = new Map<number, boolean>();
    for (let token = growth.begin; token < growth.end; token++) {
      const [n] = locate(this.rules[g], growth.first, token);
      touched.set(n, staying[n] === undefined || staying[n].isShared);
    }
    return touched;
  }

  /** A step, or what it lacks: nothing has changed then. */
  begin(entries: readonly PlainEntry[]): PlainStep | Shortage {
    const outlooks = entries.map((entry) => ({ ...entry, ...this.#growth(entry.sequence, entry.added.length) }));
    for (const [g, pool] of this.pools.entries()) {
      const need = outlooks.flatMap(({ sequence, growth }) => [...this.#touched(g, sequence.parts[g], growth[g]).values()]).filter(Boolean).length;
      if (need > pool.free) return { group: g, need, have: pool.free };
    }
    const planned = outlooks.map(({ growth, ...entry }): Planned => ({ ...entry, changes: this.rules.map((_, g) => this.#change(entry, g, growth[g])) }));
    const step = { entries: planned, appended: new Set<number>() };
    for (const { sequence } of entries) sequence.step = step;
    return step;
  }

  #change({ sequence, added }: PlainEntry, g: number, growth: Growth): Change {
    const part = sequence.parts[g];
    const pages = [...this.#staying(g, part, growth)];
    const left = part.pages.slice(0, part.pages.length - pages.length);
    const taken: PlainPage[] = [];
    for (const [n, isFresh] of this.#touched(g, part, growth)) {
      if (!isFresh) {
        pages[n].key = undefined;
        continue;
      }
      const fresh = this.pools[g].take(taken);
      taken.push(fresh);
      if (pages[n] !== undefined) {
        left.push(pages[n]);
        fresh.holds.push(...pages[n].holds);
      }
      pages[n] = fresh;
    }
    const end = Math.max(part.end, growth.first, growth.end);
    const after = { pages, first: growth.first, end, longest: Math.max(part.longest, end) };
    const ids = [...sequence.tokens, ...added];
    const writes: (readonly [PlainPage, number, number])[] = [];
    for (let token = growth.begin; token < growth.end; token++) {
      const [n, place] = locate(this.rules[g], growth.first, token);
      if (this.has(g, after, token)) writes.push([pages[n], place, ids[token]]);
    }
    return { after, taken, left, writes };
  }

  commit({ entries }: PlainStep): void {
    for (const { sequence, added, isKnown, due, changes } of entries) {
      for (const [g, { taken, left, writes }] of changes.entries()) {
        this.pools[g].release(left, sequence);
        for (const page of taken) page.holders.add(sequence).delete(taken);
        for (const [page, place, id] of writes) page.holds[place] = id;
      }
      if (isKnown && sequence.known === sequence.tokens.length) sequence.known += added.length;
      sequence.tokens = [...sequence.tokens, ...added];
      Object.assign(sequence, { due, parts: changes.map(({ after }) => after), step: undefined });
      const before = sequence.keyed;
      sequence.keyed = Math.max(before, Math.floor(sequence.known / this.shape.blockSize));
      this.keep(sequence, before);
    }
  }

  abort({ entries, appended }: PlainStep): void {
    for (const { sequence, changes } of entries) {
      for (const [g, { taken }] of changes.entries()) this.pools[g].release(taken, taken);
      if (appended.size > 0) sequence.parts = sequence.parts.map((part, g) => ({ ...part, longest: changes[g].after.longest }));
      sequence.step = undefined;
    }
  }

  /** A sequence's full pages are found by their tokens, from the given one on, unless others are. */
  keep({ tokens, keyed, parts }: PlainSequence, from: number): void {
    for (let n = from; n < keyed; n++) {
      const key = tokens.slice(0, (n + 1) * this.shape.blockSize).join();
      this.pools[0].keep(parts[0].pages[n], key);
    }
  }

  /**
   * A sequence of the pages that hold these tokens.
   * @param given whether the store gave a page, by its number in the prompt: undefined where it was not asked
   */
  match(ids: readonly number[], given: (n: number) => boolean | undefined): PlainSequence {
    const { blockSize } = this.shape;
    const [pool] = this.pools;
    const sequence = this.create();
    const wanted = Math.max(0, Math.floor((ids.length - 1) / blockSize));
    const keyOf = (n: number): string => ids.slice(0, (n + 1) * blockSize).join();
    const pages: PlainPage[] = [];
    while (pages.length < wanted) {
      const key = keyOf(pages.length);
      const there = pool.find(key);
      if (there) there.holders.add(sequence);
      else if (!given(pages.length) || pool.free === 0) break;
      else this.counters.fetched++;
      const page = there ?? pool.take(sequence);
      page.key = key;
      if (!there) page.holds.push(...ids.slice(pages.length * blockSize, (pages.length + 1) * blockSize));
      pages.push(page);
    }
    const length = pages.length * blockSize;
    this.counters.hits += pages.length;
    this.counters.misses += wanted - pages.length;
    Object.assign(sequence, { tokens: ids.slice(0, length), known: length, keyed: pages.length, parts: [{ pages, first: 0, end: length, longest: length }] });
    return sequence;
  }

  /** Tokens that a sequence may still be given by one step. */
  room({ tokens }: PlainSequence): number {
    return Math.min(this.shape.chunk, longestOf(this.shape) - tokens.length);
  }
}
