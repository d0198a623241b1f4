/** What must be true after each operation: the cache is what the model says, down to the bits. */
import type { KvCache, Sequence } from '../../../src/index.js';
import type { Pages } from '../../../src/backend.js';
import type { WasmBackend } from '../../../src/wasm/backend.js';
import type { PlainCache, PlainSequence } from './model.js';
import type { PlainPage } from './pages.js';
import { locate } from './rules.js';
import { bitsOf, LayerRows, type Bits } from './rows.js';

/** Said only where it is not so: it is asked millions of times. */
export function same<T>(actual: T, expected: T, what: () => string): void {
  if (actual !== expected) throw new Error(`${what()}: expected ${String(expected)}, got ${String(actual)}`);
}

const known = new Map<string, Bits>();

/** What the ids of a layer are in pages of a layout. */
function expectedBits(backend: WasmBackend, layer: number, { layout }: Pages): Bits {
  const name = [layer, layout.k.format, layout.v.format].join();
  const bits = known.get(name) ?? new LayerRows(layer).bits(backend, layout);
  known.set(name, bits);
  return bits;
}

/** Pages of a layer, and what tokens are in them. */
interface Store {
  readonly layer: number;
  readonly pages: Pages;
  readonly expected: Bits;
}

/** The pages of the cache's stores, by number of their group. */
export function storesOf(backend: WasmBackend, pages: readonly Pages[], { rules, shape }: PlainCache): Store[][] {
  const residuals = rules.find(({ kind }) => kind === 'residual')?.layers ?? [];
  return rules.map(({ kind, layers }) => layers.map((layer): Store => {
    const own = pages[kind === 'residual' ? shape.layers.length + residuals.indexOf(layer) : layer];
    return { layer, pages: own, expected: expectedBits(backend, layer, own) };
  }));
}

/** The cache has the page that the model has: a page that is seen for the first time gets its number. */
function bind(page: PlainPage, number: number, what: () => string): void {
  page.number ??= number;
  same(number, page.number, what);
}

function checkSequence(cache: KvCache, { parts, tokens, due, step }: PlainSequence, sequence: Sequence, name: string): void {
  same(sequence.length, tokens.length, () => `${name}, length`);
  same(sequence.isInStep, step !== undefined, () => `${name}, whether it is in a step`);
  same(sequence.state.due, due, () => `${name}, whether its residual is due`);
  for (const [g, part] of parts.entries()) {
    const held = sequence.state.held[g];
    same(held.end, part.end, () => `${name}, end of group ${g}`);
    same(held.pages.length, part.pages.length, () => `${name}, pages of group ${g}`);
    for (const [n, page] of part.pages.entries()) {
      bind(page, held.pages[n], () => `${name}, page ${n} of group ${g}`);
      same(cache.groups[g].pool.isShared(page.number!), page.isShared, () => `${name}, whether others hold page ${n} of group ${g}`);
    }
  }
}

/** Free pages, and that no page is two. */
function checkPools(cache: KvCache, model: PlainCache): void {
  for (const [g, pool] of model.pools.entries()) {
    same(cache.groups[g].pool.free, pool.free, () => `free pages of group ${g}`);
    const numbers = [...pool.pages].map(({ number }) => number).filter((number) => number !== undefined);
    same(new Set(numbers).size, numbers.length, () => `different pages of group ${g} (${numbers.join()})`);
  }
}

/** The bits of all tokens that a sequence has; of one in a step that has written, those that it still has. */
function checkTokens(cache: KvCache, model: PlainCache, stores: readonly (readonly Store[])[], bits: readonly (readonly Bits[])[], plain: PlainSequence, sequence: Sequence, name: string): void {
  const entry = plain.step?.entries.find((each) => each.sequence === plain);
  for (const [g, part] of plain.parts.entries()) {
    const there = entry && plain.step!.appended.size > 0 ? { ...part, longest: entry.changes[g].after.longest } : part;
    for (const [token, id] of plain.tokens.entries()) {
      if (!model.has(g, there, token)) continue;
      const [n, place] = locate(model.rules[g], part.first, token);
      const slot = cache.groups[g].slotOf(sequence.state.held[g], token);
      same(slot, part.pages[n].number! * model.rules[g].blockSize + place, () => `${name}, slot of token ${token} in group ${g}`);
      for (const [i, { layer, expected }] of stores[g].entries()) {
        if (!bits[g][i].isSame(slot, expected, id)) throw new Error(`${name}: token ${token} (id ${id}) of layer ${layer} is not in slot ${slot} of group ${g}`);
      }
    }
  }
}

/** Pages that nobody holds are as they were when they were left. */
function checkKept({ pools: [pool], shape }: PlainCache, [stores]: readonly (readonly Store[])[], [bits]: readonly (readonly Bits[])[]): void {
  for (const { number, holds, key } of pool.kept) {
    for (const [place, id] of holds.entries()) {
      for (const [i, { layer, expected }] of stores.entries()) {
        if (!bits[i].isSame(number! * shape.blockSize + place, expected, id!)) throw new Error(`page ${number} of ${key}, which is kept, has changed in layer ${layer}`);
      }
    }
  }
}

/** @throws Error naming the first that differs */
export function checkAll(cache: KvCache, model: PlainCache, sequences: ReadonlyMap<PlainSequence, Sequence>, stores: readonly (readonly Store[])[]): void {
  const bits = stores.map((group) => group.map(({ pages }) => bitsOf(pages)));
  same(cache.live.size, model.sequences.length, () => 'sequences');
  for (const [i, plain] of model.sequences.entries()) checkSequence(cache, plain, sequences.get(plain)!, `sequence ${i}`);
  checkPools(cache, model);
  for (const [i, plain] of model.sequences.entries()) checkTokens(cache, model, stores, bits, plain, sequences.get(plain)!, `sequence ${i}`);
  checkKept(model, stores, bits);
}
