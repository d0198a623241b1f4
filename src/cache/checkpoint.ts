/** What a cache held at some moment, read out of its pages and put into others. Knows no owners and no steps. */
import type { NhdTensors, Pages } from '../backend.js';
import { describe } from '../formats.js';
import type { Sequence, SequenceState } from './sequence.js';
import type { StorePlans } from './stores.js';

/**
 * What a cache held when `checkpoint()` was called on it: plain data on the host that belongs to no backend. It stays good
 * for any number of restores of that cache, also as a structured clone.
 */
export interface Checkpoint {
  /** Bytes of its keys, values and scales, all layers. */
  readonly byteLength: number;
  /** @internal */
  readonly origin: Origin;
  /** @internal */
  readonly sequences: readonly SavedSequence[];
  /** @internal the pages of those sequences: [groups][runs] */
  readonly runs: readonly (readonly PageRun[])[];
  /** @internal [stores][runs of their group] */
  readonly stores: readonly (readonly NhdTensors[])[];
}

/** @internal which cache a checkpoint is of */
export interface Origin {
  /** Of no other cache, in this process or another. */
  readonly id: string;
  readonly capacity: number;
  readonly layers: readonly LayerShape[];
}

/** What a layer's plain tensors depend on, each by the name of its option. */
type LayerShape = Readonly<Record<'blockSize' | 'kvHeads' | 'headDim' | 'k.dtype' | 'v.dtype' | 'k.granularity' | 'v.granularity' | 'k.groupSize' | 'v.groupSize', string | number>>;

interface SavedSequence {
  readonly id: number;
  readonly state: SequenceState;
  /** Token ids, as far as they are known. */
  readonly ids: readonly number[];
}

/** Pages that follow each other. */
interface PageRun {
  readonly first: number;
  readonly count: number;
}

/** What became of a sequence. */
export interface RestoredSequence {
  /** The sequence, usable again. */
  readonly sequence: Sequence;
  /** Tokens that it has now: as many as at the checkpoint, and 0 where it is younger. */
  readonly length: number;
  /** Tokens at its end that are gone: by so many it was longer. */
  readonly lost: number;
}

/** What a restored cache holds, and what is gone. */
export interface RestoreReport {
  /** All that were not freed. */
  readonly sequences: readonly RestoredSequence[];
  /** Tokens that are gone, all sequences together. */
  readonly lost: number;
}

/** The most that is read in one piece: on a GPU it goes through a buffer of that size. */
const RUN_BYTES = 2 ** 26;
/** Pieces on their way at once: the buffers of all stay with the backend. */
const RUNS_AT_ONCE = 4;

/** @internal */
export function originOf({ stores }: StorePlans, capacity: number): Origin {
  const id = crypto.getRandomValues(new Uint32Array(4)).join('-');
  const codes = stores.filter(({ kind }) => kind === 'codes');
  const layers = codes.map(({ layout: { blockSize, kvHeads, headDim, k, v } }): LayerShape => ({
    blockSize, kvHeads, headDim, 'k.dtype': k.format, 'v.dtype': v.format,
    'k.granularity': k.granularity, 'v.granularity': v.granularity, 'k.groupSize': k.groupSize, 'v.groupSize': v.groupSize,
  }));
  return { id, capacity, layers };
}

/**
 * @internal
 * @throws TypeError naming what differs, unless the checkpoint is of this cache
 */
export function checkOrigin(checkpoint: Checkpoint, { id, capacity, layers }: Origin): void {
  const theirs = checkpoint?.origin;
  const refuse = (expected: string, got: unknown): never => {
    throw new TypeError(`"checkpoint" expected ${expected}, got ${String(got)}`);
  };
  if (typeof theirs !== 'object') refuse('what cache.checkpoint() gave', describe(checkpoint));
  if (theirs.layers.length !== layers.length) refuse(`${layers.length} layers, as the cache has`, theirs.layers.length);
  for (const [index, layer] of layers.entries()) {
    for (const name of Object.keys(layer) as (keyof LayerShape)[]) {
      if (theirs.layers[index][name] !== layer[name]) refuse(`${name} ${layer[name]} in layer ${index}, as the cache has`, theirs.layers[index][name]);
    }
  }
  if (theirs.capacity !== capacity) refuse(`a capacity of ${capacity} tokens, as the cache has`, theirs.capacity);
  if (theirs.id !== id) refuse('a checkpoint of this cache', 'one of another');
}

/** @internal the pages in ascending order, in runs of at most `most` */
export function runsOf(held: ReadonlySet<number>, most: number): PageRun[] {
  const runs: { first: number; count: number }[] = [];
  for (const page of [...held].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && page === last.first + last.count && last.count < most) last.count++;
    else runs.push({ first: page, count: 1 });
  }
  return runs;
}

/** @internal reads pages, a store at a time: nobody may write into them meanwhile */
export async function readCheckpoint(pages: readonly Pages[], { groups, stores }: StorePlans, origin: Origin, sequences: readonly SavedSequence[], held: readonly ReadonlySet<number>[]): Promise<Checkpoint> {
  const largest = (group: number): number => Math.max(...pages.map(({ layout }, at) => (stores[at].group === group ? layout.bytes : 0)));
  const runs = groups.map((_, g) => runsOf(held[g], Math.max(1, Math.floor(RUN_BYTES / largest(g)))));
  const read: NhdTensors[][] = [];
  for (const [at, store] of pages.entries()) {
    const tensors: NhdTensors[] = [];
    const own = runs[stores[at].group];
    for (let run = 0; run < own.length; run += RUNS_AT_ONCE) {
      tensors.push(...(await Promise.all(own.slice(run, run + RUNS_AT_ONCE).map(({ first, count }) => store.export(first, count)))));
    }
    read.push(tensors);
  }
  const byteLength = read.flat().flatMap((tensors): (ArrayBufferView | undefined)[] => Object.values(tensors)).reduce((sum, tensor) => sum + (tensor?.byteLength ?? 0), 0);
  return { byteLength, origin, sequences, runs, stores: read };
}

/** @internal puts them into new pages of the same numbers */
export async function writeCheckpoint(pages: readonly Pages[], { stores }: StorePlans, { runs, stores: saved }: Checkpoint): Promise<void> {
  for (const [at, store] of pages.entries()) {
    for (const [run, { first }] of runs[stores[at].group].entries()) await store.import(saved[at][run], first);
  }
}
