/** What the model says of checkpoints and snapshots. */
import { PlainSequence, type Part, type PlainCache, type Shortage } from './model.js';
import { PlainPage } from './pages.js';
import { locate } from './rules.js';

/** What sequences were, and what was in their pages. */
export interface Saved {
  readonly sequences: ReadonlyMap<PlainSequence, Pick<PlainSequence, 'tokens' | 'known' | 'keyed' | 'due' | 'parts'>>;
  readonly pages: ReadonlyMap<PlainPage, PlainPage>;
  /** Those of each group that have tokens which a sequence keeps, in order. */
  readonly read: readonly (readonly PlainPage[])[];
}

/** At which places a sequence's pages have tokens that it keeps: by number of the page, ascending. */
function placesOf(model: PlainCache, tokens: readonly number[], g: number, part: Part): number[][] {
  const places = part.pages.map((): number[] => []);
  for (const token of tokens.keys()) {
    if (!model.has(g, part, token)) continue;
    const [n, place] = locate(model.rules[g], part.first, token);
    places[n].push(place);
  }
  return places.map((own) => own.sort((a, b) => a - b));
}

export function save(model: PlainCache, chosen: readonly PlainSequence[] = model.sequences): Saved {
  const sequences = new Map(chosen.map((sequence) => [sequence, { ...sequence }]));
  const pages = chosen.flatMap(({ parts }) => parts.flatMap((part) => part.pages));
  const read = model.rules.map((_, g) => [...new Set(chosen.flatMap(({ tokens, parts }) => {
    const places = placesOf(model, tokens, g, parts[g]);
    return parts[g].pages.filter((__, n) => places[n].length > 0);
  }))]);
  return { sequences, pages: new Map(pages.map((page) => [page, new PlainPage(page.holds, page.number)])), read };
}

/** While a snapshot is being written the pages that it reads are held. */
export function hold({ read }: Saved, holder: object): void {
  for (const pages of read) for (const page of pages) page.holders.add(holder);
}

export function letGo(model: PlainCache, { read }: Saved, holder: object): void {
  for (const [g, pages] of read.entries()) model.pools[g].release(pages, holder);
}

/** All sequences become what they were, in new pages of the same numbers; younger ones lose all. */
export function restore(model: PlainCache, { sequences, pages }: Saved): void {
  for (const pool of model.pools) pool.pages.clear();
  const renewed = new Map([...pages].map(([page, { holds, number }]) => [page, new PlainPage(holds, number)]));
  for (const sequence of model.sequences) {
    Object.assign(sequence, sequences.get(sequence) ?? new PlainSequence(model.rules.length));
    // Of tokens without ids, which a snapshot gave, the pages are not found again.
    sequence.keyed = Math.floor(sequence.known / model.shape.blockSize);
    sequence.parts = sequence.parts.map((part, g) => ({ ...part, pages: part.pages.map((page) => model.pools[g].add(renewed.get(page)!, sequence)) }));
  }
  for (const sequence of model.sequences) model.keep(sequence, 0);
}

/** What a snapshot says of a ring: nothing of how long it was once, but what it lacks of what it has now. */
function loadedPart({ kind, capacity }: PlainCache['rules'][number], part: Part, pages: readonly PlainPage[]): Part {
  const lost = kind === 'ring' ? Math.min(Math.max(0, part.longest - capacity), part.end) : 0;
  return { ...part, pages, longest: lost > 0 ? lost + capacity : part.end };
}

/** A page that is to be, and what it was. */
interface Renewed {
  readonly was: PlainPage;
  page?: PlainPage;
}

/**
 * The pages of sequences in a group: those that share tokens share pages. Of a ring's page two may have different tokens, by
 * which nobody can see that it was one.
 */
function renewedPages(model: PlainCache, { sequences }: Saved, g: number): Renewed[][] {
  const found = new Map<PlainPage, Map<number, Renewed>>();
  return [...sequences.values()].map(({ tokens, parts }) => {
    const places = placesOf(model, tokens, g, parts[g]);
    return parts[g].pages.map((was, n) => {
      const byPlace = found.get(was) ?? new Map<number, Renewed>();
      found.set(was, byPlace);
      const known = places[n].find((place) => byPlace.has(place));
      const renewed = known === undefined ? { was } : byPlace.get(known)!;
      for (const place of places[n]) byPlace.set(place, renewed);
      return renewed;
    });
  });
}

/** New sequences, which share pages as those did; or what they lack. */
export function load(model: PlainCache, saved: Saved): PlainSequence[] | Shortage {
  const renewed = model.rules.map((_, g) => renewedPages(model, saved, g));
  const needs = renewed.map((pages) => new Set(pages.flat()).size);
  // More than there are at all is seen first.
  for (const from of ['count', 'free'] as const) {
    for (const [group, need] of needs.entries()) if (need > model.pools[group][from]) return { group, need, have: model.pools[group][from] };
  }
  const created = [...saved.sequences.values()].map(({ tokens, keyed, due, parts }, s) => {
    const sequence = model.create();
    const pagesOf = (g: number): PlainPage[] => renewed[g][s].map((each) => {
      if (each.page === undefined) {
        each.page = model.pools[g].take(sequence);
        each.page.holds.push(...saved.pages.get(each.was)!.holds);
      }
      each.page.holders.add(sequence);
      return each.page;
    });
    return Object.assign(sequence, { tokens, keyed, due, parts: parts.map((part, g) => loadedPart(model.rules[g], part, pagesOf(g))) });
  });
  for (const sequence of created) model.keep(sequence, 0);
  return created;
}
