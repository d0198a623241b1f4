/** Snapshots of a world's sequences, and new sequences out of them. */
import { loadSnapshot, OutOfPagesError, saveSnapshot } from '../../../src/index.js';
import { same } from './check.js';
import { hold, letGo, load, save, type Saved } from './saved.js';
import type { World } from './world.js';

/** On its way into a file: other operations go on meanwhile. */
export interface Saving {
  readonly saved: Saved;
  readonly chunks: AsyncGenerator<Uint8Array, void>;
  readonly bytes: Uint8Array[];
}

export interface Snapshot {
  readonly saved: Saved;
  readonly file: Uint8Array;
}

const MOST_SNAPSHOTS = 3;

/** Begins with some of the sequences that are in no step. */
export async function beginSnapshot(world: World): Promise<void> {
  const { idle, random, model } = world;
  const chosen = idle.filter(() => random.integer(3) > 0);
  const saved = save(model, chosen);
  const chunks = saveSnapshot(world.cache, { sequences: chosen.map((plain) => world.sequenceOf(plain)) });
  world.saving = { saved, chunks, bytes: [] };
  hold(saved, world.saving);
  const first = random.integer(2) === 0 ? await chunks.next() : undefined;
  if (first?.value) world.saving.bytes.push(first.value);
}

/** Reads the rest, or gives it up. */
export async function endSnapshot(world: World): Promise<void> {
  const { saving, random, snapshots } = world;
  if (saving === undefined) return;
  if (random.integer(6) === 0) {
    await saving.chunks.return();
    world.note('save given up');
  } else {
    for await (const bytes of saving.chunks) saving.bytes.push(bytes);
    snapshots.push({ saved: saving.saved, file: new Uint8Array(Buffer.concat(saving.bytes)) });
    if (snapshots.length > MOST_SNAPSHOTS) snapshots.shift();
    world.note('save');
  }
  letGo(world.model, saving.saved, saving);
  world.saving = undefined;
}

/** Takes one in, where there is room for it. */
export async function loadOne(world: World): Promise<void> {
  const { model } = world;
  const { saved, file } = world.one(world.snapshots);
  const created = load(model, saved);
  const outcome = await loadSnapshot(world.cache, file).catch((error: unknown) => error);
  if ('need' in created) {
    if (!(outcome instanceof OutOfPagesError)) throw new Error(`a snapshot in group ${created.group}: expected OutOfPagesError, got ${String(outcome)}`);
    same(outcome.have, created.have, () => `pages that there are of group ${created.group}`);
    // Where there are too few at all, it stops to count.
    if (created.have < model.pools[created.group].count) same(outcome.need, created.need, () => `pages needed of group ${created.group}`);
    return world.note('load refused');
  }
  if (!Array.isArray(outcome)) throw outcome;
  same(outcome.length, created.length, () => 'sequences of the snapshot');
  for (const [i, plain] of created.entries()) world.sequences.set(plain, outcome[i]);
  if (created.some(({ tokens }) => tokens.length > 0)) world.note('load');
}

/** A file that lost its last byte gives nothing, and all goes on as it was. */
export async function loadBroken(world: World): Promise<void> {
  const { file } = world.one(world.snapshots);
  const broken = await loadSnapshot(world.cache, file.subarray(0, -1)).then(() => false, () => true);
  same(broken, true, () => 'whether a snapshot that was cut is refused');
  world.note('load of a broken snapshot');
}
