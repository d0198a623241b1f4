/** A snapshot on its way into a cache: into pages that nobody else has until it is all there. */
import type { NhdTensors, Pages } from '../backend.js';
import { OutOfPagesError } from '../errors.js';
import type { SnapshotHead, SnapshotHeld, SnapshotSequence } from '../files/snapshot-head.js';
import type { SnapshotLayerTensors, SnapshotSink } from '../files/snapshot.js';
import { newTensors } from '../tensors.js';
import { runsOf } from './checkpoint.js';
import type { PageGroup } from './groups.js';
import type { SequenceState } from './sequence.js';
import { checkSameLayers, checkSameScales, snapshotLayers, type CacheParts } from './snapshot-layers.js';
import { PagePlan, type PlannedPage } from './snapshot-pages.js';
import { copyRows } from './snapshot-save.js';
import type { KeyChain } from './token-log.js';

/** The most that is written in one piece, unless one page is larger. */
const RUN_BYTES = 2 ** 24;

/** A sequence that is to be. */
interface Loaded {
  readonly state: SequenceState;
  readonly keys: readonly string[];
}

/**
 * What a sequence holds in the snapshot, for each of the cache's groups.
 * @throws TypeError where layers that keep the same tokens in the cache do not in the snapshot
 */
function groupsOf(head: SnapshotHead, { plans }: CacheParts): number[] {
  const theirs: number[] = [];
  for (const { layer, kind, group } of plans.stores) {
    const { group: codes, residual } = head.layers[layer];
    const found = kind === 'codes' ? codes : residual!.group;
    if ((theirs[group] ??= found) !== found) throw new TypeError(`"snapshot" expected layer ${layer} to keep the tokens of group ${theirs[group]}, as those before it, got group ${found}`);
  }
  return theirs;
}

/**
 * Whether a group can have come to hold that.
 * @param quantized tokens that are not in the residual
 * @throws TypeError where it cannot
 */
function checkHeld({ kind, late, sinkTokens, window }: PageGroup, { sinks, floor, end }: SnapshotHeld, length: number, quantized: number, what: string): void {
  const last = late ? quantized : length;
  const first = { all: 0, residual: quantized, ring: Math.min(last, Math.max(sinkTokens, length - window + 1)) }[kind];
  const fits = end === last && sinks === Math.min(sinkTokens, floor) && (kind === 'ring' ? floor <= first : floor === first);
  if (!fits) throw new TypeError(`"snapshot" expected sinks, floor and end of ${Math.min(sinkTokens, floor)}, ${first} and ${last} in ${what}, got ${sinks}, ${floor} and ${end}`);
}

async function writePages(store: Pages, planned: readonly PlannedPage[], from: NhdTensors, rows: number): Promise<void> {
  const { blockSize, bytes } = store.layout;
  const byNumber = new Map(planned.map((each) => [each.page, each]));
  for (const { first, count } of runsOf(new Set(byNumber.keys()), Math.max(1, Math.floor(RUN_BYTES / bytes)))) {
    const { tensors } = newTensors(store.layout, count);
    for (let page = 0; page < count; page++) fillPage(byNumber.get(first + page)!.rows, tensors, page * blockSize, count * blockSize, from, rows);
    await store.import(tensors, first);
  }
}

function fillPage(rows: Float64Array, to: NhdTensors, at: number, slots: number, from: NhdTensors, count: number): void {
  for (let place = 0; place < rows.length; ) {
    let end = place + 1;
    while (end < rows.length && rows[end] === rows[place] + end - place) end++;
    if (rows[place] >= 0) copyRows(from, rows[place], to, at + place, end - place, { from: count, to: slots });
    place = rows[place] >= 0 ? end : place + 1;
  }
}

export class Loading implements SnapshotSink {
  #loaded: readonly Loaded[] = [];
  #plans: readonly PagePlan[] = [];

  constructor(
    private readonly parts: CacheParts,
    private readonly chain: KeyChain | undefined,
  ) {}

  get sequences(): readonly Loaded[] {
    return this.#loaded;
  }

  /** Takes all pages, or none. */
  head(head: SnapshotHead): void {
    const { groups } = this.parts;
    checkSameLayers(head.layers, snapshotLayers(this.parts));
    const theirs = groupsOf(head, this.parts);
    const plans = groups.map((group) => new PagePlan(group));
    for (const [index, sequence] of head.sequences.entries()) {
      this.#checkLength(sequence);
      const held = theirs.map((group) => sequence.held[group]);
      const residual = groups.findIndex(({ kind }) => kind === 'residual');
      const quantized = residual < 0 ? sequence.length : held[residual].floor;
      held.forEach((each, g) => checkHeld(groups[g], each, sequence.length, quantized, `sequences[${index}].held[${theirs[g]}]`));
      held.forEach((each, g) => plans[g].add(each));
    }
    for (const plan of plans) plan.checkFree();
    this.#take(head, plans);
  }

  /** What limits a single sequence. */
  #checkLength({ length }: SnapshotSequence): void {
    const { contiguous, context, limited, blockSize } = this.parts.options;
    if (limited && length > context) throw new RangeError(`"snapshot" expected sequences of at most ${context} tokens, the cache's "context", got ${length}`);
    if (contiguous && length > blockSize) throw new OutOfPagesError(Math.ceil(length / blockSize), 1, `a sequence has one, of ${blockSize} tokens: truncate it`, 'the snapshot');
  }

  #take({ sequences, chain }: SnapshotHead, plans: readonly PagePlan[]): void {
    const held = plans.map((plan) => plan.take());
    const known = chain !== undefined && chain.root === this.chain?.root && chain.blockSize === this.chain.blockSize;
    this.#plans = plans;
    this.#loaded = sequences.map(({ length, due = false, hashes = [] }, s) => ({ state: { length, held: held.map((each) => each[s]), due }, keys: known ? hashes : [] }));
  }

  async layer(index: number, { key, value, keyScale, valueScale, kScale, vScale, residualKey, residualValue }: SnapshotLayerTensors): Promise<void> {
    const own = this.parts.options.layers[index];
    checkSameScales(kScale, own.kScale, `layers[${index}].k`);
    checkSameScales(vScale, own.vScale, `layers[${index}].v`);
    await this.#write(index, 'codes', { keyCache: key, valueCache: value, keyScale, valueScale });
    if (residualKey && residualValue) await this.#write(index, 'residual', { keyCache: residualKey, valueCache: residualValue });
  }

  async #write(layer: number, kind: 'codes' | 'residual', from: NhdTensors): Promise<void> {
    const { plans: { stores }, pages } = this.parts;
    const at = stores.findIndex((store) => store.layer === layer && store.kind === kind);
    const { headDim, kvHeads } = stores[at].layout;
    await writePages(pages[at], this.#plans[stores[at].group].pages, from, from.keyCache.length / (kvHeads * headDim));
  }

  /** Gives all pages back. */
  release(): void {
    for (const { state } of this.#loaded) this.parts.groups.forEach((group, g) => group.release(state.held[g]));
    this.#loaded = [];
  }
}
