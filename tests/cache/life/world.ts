/** A cache beside its model: each operation is done to both. */
import { throws } from 'uvu/assert';
import { KvCache, OutOfPagesError, wasmBackend, type Checkpoint, type Sequence, type Step } from '../../../src/index.js';
import type { Pages } from '../../../src/backend.js';
import type { WasmBackend } from '../../../src/wasm/backend.js';
import type { Random } from '../../random.js';
import { checkAll, same, storesOf } from './check.js';
import { PlainCache, type PlainEntry, type PlainSequence, type PlainStep } from './model.js';
import { optionsOf, type WorldShape } from './rules.js';
import { LayerRows } from './rows.js';
import { restore, save, type Saved } from './saved.js';
import { endSnapshot, type Saving, type Snapshot } from './snapshots.js';
import type { MemoryStore } from './store.js';

interface OpenStep {
  readonly step: Step;
  readonly plain: PlainStep;
}

/** A backend, and the pages that were made on it. */
export interface Place {
  readonly backend: WasmBackend;
  readonly made: Pages[];
}

/** A backend that notes its pages: of the residual's there is no other way to them. */
export function place(): Place {
  const backend = wasmBackend();
  const made: Pages[] = [];
  const createPages = backend.createPages.bind(backend);
  backend.createPages = (layout, count) => {
    const pages = createPages(layout, count);
    made.push(pages);
    return pages;
  };
  return { backend, made };
}

export interface WorldOptions {
  readonly shape: WorldShape;
  readonly random: Random;
  readonly places: readonly Place[];
  /** Whether pages are found by their tokens, and the store that they go to. */
  readonly prefix: boolean;
  readonly store?: MemoryStore;
}

const rows = [0, 1, 2, 3, 4].map((layer) => new LayerRows(layer));

/** What a step that lacks pages comes to. */
function outcomeOf(begin: () => Step): string {
  try {
    begin();
    return 'a step';
  } catch (error) {
    return error instanceof OutOfPagesError ? `OutOfPagesError of ${error.need}, ${error.have}` : String(error);
  }
}

export class World {
  readonly cache: KvCache;
  readonly model: PlainCache;
  readonly shape: WorldShape;
  readonly random: Random;
  readonly store: MemoryStore | undefined;
  readonly hasPrefix: boolean;
  readonly sequences = new Map<PlainSequence, Sequence>();
  open: OpenStep[] = [];
  checkpoints: { readonly checkpoint: Checkpoint; readonly saved: Saved }[] = [];
  saving: Saving | undefined;
  snapshots: Snapshot[] = [];
  #places: readonly Place[];
  #stores: ReturnType<typeof storesOf> = [];

  /** @param seen is counted in: how often operations had an effect */
  constructor(
    { shape, random, places, prefix, store }: WorldOptions,
    readonly seen: Map<string, number>,
  ) {
    this.shape = shape;
    this.random = random;
    this.store = store;
    this.hasPrefix = prefix;
    this.#places = places;
    this.cache = new KvCache(places[0].backend, { ...optionsOf(shape), prefix: prefix ? { model: 'life', store } : undefined });
    this.model = new PlainCache(shape, this.cache.groups.map(({ pageCount }) => pageCount));
    this.#pagesChanged();
  }

  #pagesChanged(): void {
    const [{ backend, made }] = this.#places;
    const count = this.shape.layers.length + (this.model.rules.find(({ kind }) => kind === 'residual')?.layers.length ?? 0);
    this.#stores = storesOf(backend, made.slice(-count), this.model);
  }

  note(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }

  /** The cache is as the model says, once what goes to the store is there. */
  async check(): Promise<void> {
    if (this.store) await this.cache.settled();
    checkAll(this.cache, this.model, this.sequences, this.#stores);
    if (!this.hasPrefix) return;
    const counters = this.cache.prefixCounters;
    for (const [name, count] of Object.entries(this.model.counters)) same(counters[name as keyof typeof counters], count, () => name);
    if (this.store) same(counters.stored, this.store.puts, () => 'stored');
  }

  dispose(): void {
    for (const { step } of this.open) step.abort();
    this.cache.dispose();
    for (const { made } of this.#places) made.length = 0;
  }

  one<T>(list: readonly T[]): T {
    return list[this.random.integer(list.length)];
  }

  sequenceOf(plain: PlainSequence): Sequence {
    return this.sequences.get(plain)!;
  }

  get idle(): PlainSequence[] {
    return this.model.sequences.filter(({ step }) => step === undefined);
  }

  create(): void {
    this.sequences.set(this.model.create(), this.cache.createSequence());
    this.note('create');
  }

  fork(plain: PlainSequence): void {
    this.sequences.set(this.model.fork(plain), this.sequenceOf(plain).fork());
    if (plain.tokens.length > 0) this.note('fork');
  }

  free(plain: PlainSequence): void {
    this.model.free(plain);
    this.sequenceOf(plain).free();
    this.sequences.delete(plain);
    if (plain.tokens.length > 0) this.note('free');
  }

  /** Cuts it, or is refused where a ring has lost what would be seen. */
  truncate(plain: PlainSequence, length: number): void {
    const sequence = this.sequenceOf(plain);
    const shortest = this.model.shortest(plain);
    const before = plain.tokens.length;
    if (length < before && length < shortest) {
      throws(() => sequence.truncate(length), new RegExp(`"length" expected at least ${shortest}`));
      return this.note('truncate refused');
    }
    this.model.truncate(plain, length);
    sequence.truncate(length);
    if (length < before) this.note('truncate');
  }

  /** A step, where there is room for it. */
  begin(entries: readonly PlainEntry[]): void {
    const begin = (): Step => this.cache.begin(entries.map(({ sequence, added, isKnown }) => ({ sequence: this.sequenceOf(sequence), tokens: isKnown ? added : added.length })));
    const evictions = this.model.counters.evictions;
    const plain = this.model.begin(entries);
    if ('need' in plain) {
      const expected = `OutOfPagesError of ${plain.need}, ${plain.have}`;
      same(outcomeOf(begin), expected, () => `a step in group ${plain.group}`);
      return this.note(`out of pages, ${this.model.rules[plain.group].kind}`);
    }
    const step = begin();
    this.open.push({ step, plain });
    same(step.tokens, entries.reduce((sum, { added }) => sum + added.length, 0), () => 'tokens of the step');
    if (step.tokens > 0) this.note('begin');
    if (this.open.length > 1) this.note('several steps');
    if (plain.entries.some(({ changes }) => changes.some(({ left }) => left.some(({ isShared }) => isShared)))) this.note('copy on write');
    if (this.model.counters.evictions > evictions) this.note('evict');
  }

  append({ step, plain }: OpenStep, layer: number): void {
    const { key, value } = rows[layer].of(plain.entries.flatMap(({ added }) => added));
    const status = step.append(layer, key, value);
    same((status as { written: number }).written, step.tokens, () => 'written');
    plain.appended.add(layer);
    if (step.tokens > 0) this.note('append');
  }

  #missing({ step, plain }: OpenStep): number[] {
    return step.tokens === 0 ? [] : this.shape.layers.map((_, layer) => layer).filter((layer) => !plain.appended.has(layer));
  }

  /** Appends to the layers that are missing, if so in two parts, and commits. */
  async commit(open: OpenStep): Promise<void> {
    const missing = this.#missing(open);
    if (missing.length > 0 && this.random.integer(3) === 0) {
      for (const layer of missing.splice(0, this.random.integer(missing.length))) this.append(open, layer);
      throws(() => open.step.commit(), /missing/);
      this.note('commit refused');
      await this.check();
    }
    for (const layer of missing) this.append(open, layer);
    this.model.commit(open.plain);
    open.step.commit();
    this.#ended(open, 'commit');
  }

  abort(open: OpenStep): void {
    this.model.abort(open.plain);
    open.step.abort();
    this.#ended(open, open.plain.appended.size > 0 ? 'abort after an append' : 'abort');
  }

  #ended(open: OpenStep, how: string): void {
    this.open = this.open.filter((each) => each !== open);
    if (open.step.tokens > 0) this.note(how);
  }

  /** What is open ends, one way or the other. */
  async settle(): Promise<void> {
    for (const open of this.open) {
      if (this.random.integer(2) === 0) await this.commit(open);
      else this.abort(open);
    }
    await endSnapshot(this);
  }

  /** Nothing can be done to what is in a step. */
  refuse(plain: PlainSequence): void {
    const sequence = this.sequenceOf(plain);
    for (const action of [() => sequence.fork(), () => sequence.truncate(0), () => sequence.free(), () => this.cache.begin([{ sequence, tokens: 1 }])]) throws(action, /in a step/);
    this.note('refused in a step');
  }

  /** Looks for a prompt, at once or also in the store. */
  async match(ids: readonly number[]): Promise<void> {
    const { store, cache } = this;
    const isSync = store === undefined || this.random.integer(3) === 0;
    store?.answers.clear();
    const before = { ...this.model.counters };
    const { sequence, length } = isSync ? cache.matchPrefixSync(ids) : await cache.matchPrefix(ids);
    const keys = isSync ? [] : cache.keyChain!.keys(ids);
    const plain = this.model.match(ids, (n) => {
      if (isSync) return false;
      const answer = store!.answers.get(keys[n]);
      if (answer === undefined) throw new Error(`page ${n} is not in the cache, and the store was not asked for it`);
      return answer;
    });
    same(length, plain.tokens.length, () => 'tokens found');
    this.sequences.set(plain, sequence);
    if (length > 0) this.note('match');
    if (this.model.counters.fetched > before.fetched) this.note('fetch');
    if (this.model.counters.evictions > before.evictions) this.note('evict for a match');
  }

  /** The store has all pages of a sequence that are known. */
  async storePrefix(plain: PlainSequence): Promise<void> {
    const went = await this.cache.storePrefix(this.sequenceOf(plain));
    for (const key of this.cache.keyChain!.keys(plain.tokens.slice(0, plain.known))) same(this.store!.values.has(key), true, () => `whether the store has page ${key}`);
    if (went > 0) this.note('store');
  }

  async checkpoint(): Promise<void> {
    const saved = save(this.model);
    this.checkpoints.push({ checkpoint: await this.cache.checkpoint(), saved });
    if (this.checkpoints.length > 2) this.checkpoints.shift();
    this.note('checkpoint');
  }

  async restore(): Promise<void> {
    const { checkpoint, saved } = this.one(this.checkpoints);
    const before = new Map(this.model.sequences.map((plain) => [plain, plain.tokens.length]));
    this.#places = [...this.#places.slice(1), this.#places[0]];
    const report = await this.cache.restore(this.#places[0].backend, checkpoint);
    restore(this.model, saved);
    this.#pagesChanged();
    for (const [i, plain] of this.model.sequences.entries()) {
      same(report.sequences[i].sequence, this.sequenceOf(plain), () => `sequence ${i} of the report`);
      same(report.sequences[i].length, plain.tokens.length, () => `length of sequence ${i} of the report`);
      same(report.sequences[i].lost, Math.max(0, before.get(plain)! - plain.tokens.length), () => `tokens lost of sequence ${i}`);
    }
    this.note('restore');
  }

  /** While a step is open the cache cannot be saved, nor restored. */
  async refuseRest(): Promise<void> {
    for (const action of [() => this.cache.checkpoint(), () => this.cache.restore(this.#places[0].backend)]) {
      const refused = await action().then(() => false, (error: Error) => /no open step|no pages on their way/.test(error.message));
      same(refused, true, () => 'whether an open step was refused');
    }
    this.note('refused at work');
  }
}
