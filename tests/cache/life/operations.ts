/** Which operation comes next, and what it is done to: all of it by chance. */
import type { PlainEntry, PlainSequence } from './model.js';
import { VOCABULARY } from './rows.js';
import { beginSnapshot, endSnapshot, loadBroken, loadOne } from './snapshots.js';
import type { World } from './world.js';

const MOST_SEQUENCES = 7;
const MOST_OPEN = 3;
const SCRIPTS = 6;

/** Tokens of a script: those after the first few are its own. */
const scripted = (script: number, position: number): number => (position < 5 ? position : 7 * position + 11 * script) % VOCABULARY;

const idsOf = (script: number, from: number, count: number): number[] => Array.from({ length: count }, (_, i) => scripted(script, from + i));

/** New tokens of a sequence: those of a script, which others may have too, or any. */
function tokensFor({ random, hasPrefix, model }: World, sequence: PlainSequence): PlainEntry {
  const most = Math.max(0, Math.min(model.room(sequence), random.integer(4) === 0 ? 13 : 5));
  const count = random.integer(most + 1);
  const { length } = sequence.tokens;
  if (!hasPrefix) return { sequence, added: Array.from({ length: count }, () => random.integer(VOCABULARY)), isKnown: false };
  const isKnown = random.integer(12) > 0;
  // It goes on as it began, as a rule.
  const own = Math.max(0, Array.from({ length: SCRIPTS }, (_, script) => script).findIndex((script) => length > 5 && sequence.tokens[length - 1] === scripted(script, length - 1)));
  const script = length > 5 && random.integer(8) > 0 ? own : random.integer(SCRIPTS);
  return { sequence, added: idsOf(script, length, count), isKnown };
}

function begin(world: World): void {
  const chosen = new Set(Array.from({ length: 1 + world.random.integer(3) }, () => world.one(world.idle)));
  world.begin([...chosen].map((sequence) => tokensFor(world, sequence)));
}

function truncate(world: World): void {
  const plain = world.one(world.idle);
  const { length } = plain.tokens;
  // By a few tokens mostly, as rings allow no more.
  const by = world.random.integer(3) === 0 ? length : Math.min(length, 4);
  world.truncate(plain, length - world.random.integer(by + 1));
}

async function atRest(world: World, action: () => Promise<void>): Promise<void> {
  if (world.open.length > 0 && world.random.integer(3) === 0) return world.refuseRest();
  await world.settle();
  await action();
}

interface Operation {
  readonly name: string;
  /** How often it comes, beside others. */
  readonly weight: number;
  /** Whether there is anything to be done. */
  can(world: World): boolean;
  run(world: World): void | Promise<void>;
}

const hasRoom = ({ model }: World): boolean => model.sequences.length < MOST_SEQUENCES;
const hasIdle = ({ idle }: World): boolean => idle.length > 0;
const hasOpen = ({ open }: World): boolean => open.length > 0;

const operations: readonly Operation[] = [
  { name: 'create', weight: 4, can: hasRoom, run: (world) => world.create() },
  { name: 'begin', weight: 20, can: (world) => hasIdle(world) && world.open.length < MOST_OPEN, run: begin },
  { name: 'append', weight: 8, can: hasOpen, run: (world) => world.append(world.one(world.open), world.random.integer(world.shape.layers.length)) },
  { name: 'commit', weight: 18, can: hasOpen, run: (world) => world.commit(world.one(world.open)) },
  { name: 'abort', weight: 6, can: hasOpen, run: (world) => world.abort(world.one(world.open)) },
  { name: 'fork', weight: 6, can: (world) => hasIdle(world) && hasRoom(world), run: (world) => world.fork(world.one(world.idle)) },
  { name: 'truncate', weight: 6, can: hasIdle, run: truncate },
  { name: 'free', weight: 8, can: hasIdle, run: (world) => world.free(world.one(world.idle)) },
  { name: 'match', weight: 12, can: (world) => world.hasPrefix && hasRoom(world), run: (world) => world.match(idsOf(world.random.integer(SCRIPTS), 0, world.random.integer(24))) },
  { name: 'store', weight: 2, can: (world) => world.store !== undefined && hasIdle(world), run: (world) => world.storePrefix(world.one(world.idle)) },
  { name: 'checkpoint', weight: 1, can: () => true, run: (world) => atRest(world, () => world.checkpoint()) },
  { name: 'restore', weight: 1, can: ({ checkpoints }) => checkpoints.length > 0, run: (world) => atRest(world, () => world.restore()) },
  { name: 'save', weight: 2, can: (world) => world.saving === undefined && hasIdle(world), run: beginSnapshot },
  { name: 'end of a save', weight: 6, can: ({ saving }) => saving !== undefined, run: endSnapshot },
  { name: 'load', weight: 2, can: (world) => world.snapshots.length > 0 && hasRoom(world), run: loadOne },
  // Pages that are kept may have to go for it: which, nobody can see.
  { name: 'load of what is broken', weight: 1, can: ({ snapshots, hasPrefix }) => snapshots.length > 0 && !hasPrefix, run: loadBroken },
  { name: 'refuse', weight: 2, can: hasOpen, run: (world) => world.refuse(world.one(world.open).plain.entries[0].sequence) },
];

/**
 * One operation that has something to do, after which the cache is as the model says.
 * @throws Error that begins with the operation's name
 */
export async function operate(world: World): Promise<void> {
  const possible = operations.filter(({ can }) => can(world));
  let at = world.random.integer(possible.reduce((sum, { weight }) => sum + weight, 0));
  const { name, run } = possible.find(({ weight }) => (at -= weight) < 0)!;
  try {
    await run(world);
    await world.check();
  } catch (error) {
    throw new Error(`${name}: ${(error as Error).message}`, { cause: error });
  }
}
