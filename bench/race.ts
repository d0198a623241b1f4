/** Timing in alternation: everyone gets turns in the same rounds, so that a machine that slows down slows all. */
import { collectGarbage } from '../tests/gc.js';

/** Milliseconds of each timed run. */
export type Times = number[];
/** What it gives, or promises, is of no interest. */
export type Run = () => unknown;

/** Of timed runs in one turn. */
const TURN_MS = 30;
/** From here on a run is a turn, */
const SLOW_MS = 100;
/** and from here on one that is taken in every fourth round only. */
const VERY_SLOW_MS = 2000;

async function timed(run: Run): Promise<number> {
  const start = performance.now();
  await run();
  return performance.now() - start;
}

/** Gives the time of the last run. */
async function warmUp(run: Run, milliseconds: number): Promise<number> {
  let last = 0;
  for (let spent = 0; spent < milliseconds; spent += last) last = await timed(run);
  return last;
}

/** The first run of a turn finds the processor's caches full of what another left there, and does not count. */
async function turn(run: Run, times: Times): Promise<void> {
  // The garbage of one is not collected in the time of another.
  collectGarbage();
  const first = await timed(run);
  if (first >= SLOW_MS) times.push(first);
  for (let spent = first >= SLOW_MS ? TURN_MS : 0; spent < TURN_MS; spent += times.at(-1)!) times.push(await timed(run));
}

/**
 * @param warmUpMs before the first round, for each: until V8 has compiled what it will. Less is enough where many share a build
 * @returns the times of each, ascending
 */
export async function race(runs: readonly Run[], rounds: number, warmUpMs = 400): Promise<Times[]> {
  const racers: { run: Run; times: Times; everyFourth: boolean }[] = [];
  for (const run of runs) racers.push({ run, times: [], everyFourth: (await warmUp(run, warmUpMs)) >= VERY_SLOW_MS });
  for (let round = 0; round < rounds; round++) {
    // Each round begins with another, so that nobody always comes after the same one.
    for (let i = 0; i < racers.length; i++) {
      const { run, times, everyFourth } = racers[(round + i) % racers.length];
      if (!everyFourth || round % 4 === 0) await turn(run, times);
    }
  }
  return racers.map(({ times }) => times.sort((a, b) => a - b));
}

export const median = (times: Times): number => times[times.length >> 1];
