/** What sequences hold, as a snapshot has it: each token of a layer once, as a row, whoever shares it. */
import type { CodeArray, NhdTensors, Pages } from '../backend.js';
import type { SnapshotHead, SnapshotHeld } from '../files/snapshot-head.js';
import type { SnapshotLayerTensors } from '../files/snapshot.js';
import { newTensors } from '../tensors.js';
import { runsOf } from './checkpoint.js';
import type { Held, PageGroup } from './groups.js';
import type { Sequence } from './sequence.js';
import { snapshotLayers, type CacheParts } from './snapshot-layers.js';
import { storeNumber } from './stores.js';
import type { KeyChain } from './token-log.js';

/** The most that is read in one piece, unless one page is larger. */
const RUN_BYTES = 2 ** 24;

/** Tokens that follow each other in a page, and their rows. */
interface Move {
  readonly place: number;
  readonly row: number;
  count: number;
}

/** The rows of a group: slots that sequences hold, in the order in which they come up. */
class GroupRows {
  count = 0;
  readonly moves = new Map<number, Move[]>();
  /** By page: the row of each place, −1 where there is none. */
  readonly #rows = new Map<number, Int32Array>();

  constructor(private readonly group: PageGroup) {}

  /** Pages that have any. */
  get pages(): ReadonlySet<number> {
    return new Set(this.moves.keys());
  }

  add(held: Held): SnapshotHeld {
    // After a step that was aborted a short sequence may have a floor beyond its end: nothing it has is gone.
    const floor = Math.min(held.floor, held.end);
    const sinks = Math.min(this.group.sinkTokens, floor);
    const runs: [number, number][] = [];
    for (const [begin, end] of [[0, sinks], [floor, held.end]]) {
      for (const { page, place, count } of this.group.runs(held, begin, end)) {
        for (let i = 0; i < count; i++) extendRuns(runs, this.#rowOf(held.pages[page], place + i));
      }
    }
    return { sinks, floor, end: held.end, runs };
  }

  #rowOf(page: number, place: number): number {
    let rows = this.#rows.get(page);
    if (rows === undefined) {
      this.#rows.set(page, (rows = new Int32Array(this.group.blockSize).fill(-1)));
      this.moves.set(page, []);
    }
    if (rows[place] >= 0) return rows[place];
    const row = (rows[place] = this.count++);
    const moves = this.moves.get(page)!;
    const last = moves.at(-1);
    if (last && last.place + last.count === place && last.row + last.count === row) last.count++;
    else moves.push({ place, row, count: 1 });
    return row;
  }
}

function extendRuns(runs: [number, number][], row: number): void {
  const last = runs.at(-1);
  if (last && last[0] + last[1] === row) last[1]++;
  else runs.push([row, 1]);
}

/** Copies `count` of the rows that lie one behind the other in both. */
export function copyRows(from: NhdTensors, fromRow: number, to: NhdTensors, toRow: number, count: number, rows: { readonly from: number; readonly to: number }): void {
  const copy = (source: CodeArray | undefined, target: CodeArray | undefined): void => {
    if (source === undefined || target === undefined) return;
    const width = source.length / rows.from;
    target.set(source.subarray(fromRow * width, (fromRow + count) * width), toRow * width);
  };
  copy(from.keyCache, to.keyCache);
  copy(from.valueCache, to.valueCache);
  copy(from.keyScale, to.keyScale);
  copy(from.valueScale, to.valueScale);
}

async function readRows(store: Pages, { moves, pages, count }: GroupRows, blockSize: number): Promise<NhdTensors> {
  const { tensors } = newTensors({ ...store.layout, blockSize: 1 }, count);
  for (const run of runsOf(pages, Math.max(1, Math.floor(RUN_BYTES / store.layout.bytes)))) {
    const read = await store.export(run.first, run.count);
    const rows = { from: run.count * blockSize, to: count };
    for (let page = 0; page < run.count; page++) {
      for (const move of moves.get(run.first + page)!) copyRows(read, page * blockSize + move.place, tensors, move.row, move.count, rows);
    }
  }
  return tensors;
}

/** Sequences on their way into a file. */
export class Saving {
  readonly head: SnapshotHead;
  readonly #rows: readonly GroupRows[];

  constructor(
    private readonly parts: CacheParts,
    sequences: readonly Sequence[],
    chain: KeyChain | undefined,
  ) {
    this.#rows = parts.groups.map((group) => new GroupRows(group));
    const saved = sequences.map(({ length, state: { held, due }, tokens }) => ({
      length, held: held.map((each, g) => this.#rows[g].add(each)),
      ...(due && { due }),
      ...(chain && { hashes: tokens.keys.slice() }),
    }));
    this.head = {
      version: 1,
      ...(chain && { chain: { root: chain.root, blockSize: chain.blockSize } }),
      layers: snapshotLayers(parts), groups: this.#rows.map(({ count }) => ({ tokens: count })), sequences: saved,
    };
  }

  share(): void {
    this.parts.groups.forEach(({ pool }, g) => pool.shareAll(this.#rows[g].pages));
  }

  release(): void {
    this.parts.groups.forEach(({ pool }, g) => pool.releaseAll([...this.#rows[g].pages]));
  }

  async layer(index: number): Promise<SnapshotLayerTensors> {
    const { kScale, vScale } = this.parts.options.layers[index];
    const codes = await this.#read(index, 'codes');
    const residual = await this.#read(index, 'residual');
    return {
      key: codes!.keyCache, value: codes!.valueCache, keyScale: codes!.keyScale, valueScale: codes!.valueScale, kScale, vScale,
      residualKey: residual?.keyCache as Float32Array | undefined, residualValue: residual?.valueCache as Float32Array | undefined,
    };
  }

  async #read(layer: number, kind: 'codes' | 'residual'): Promise<NhdTensors | undefined> {
    const { plans, groups, pages } = this.parts;
    const at = storeNumber(plans, layer, kind);
    if (at === undefined) return undefined;
    const { group } = plans.stores[at];
    return readRows(pages[at], this.#rows[group], groups[group].blockSize);
  }
}
