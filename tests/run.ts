/**
 * Runs the tests: `node --import tsx tests/run.ts [--kind test|slow] [--no-browser] [part of a path …]`.
 * Every `*.test.ts`, or every `*.slow.ts`, whose path contains one of the parts; those in a folder `webgpu` once more in Chromium.
 * The last line counts. The work is done by children: the environment that gives WebGPU its adapter must be there when a
 * process starts, and a whole run takes half as long when tests of the GPU, of which each keeps one core busy with compiling, run
 * beside the others.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { adapterEnvironment } from './gpu/environment.js';
import { sum, summary, totalsOf, type Totals } from './runner/loop.js';

const files = fileURLToPath(new URL('runner/files.ts', import.meta.url));
const given = process.argv.slice(2);
const none: Totals = { passed: 0, failed: 0, skipped: 0 };

/** Counts a child that left no count. */
function lost(reason: unknown): Totals {
  console.error(reason);
  return { ...none, failed: 1 };
}

/** Runs some files in a child, which prints through `print`. */
function runChild(args: readonly string[], env: NodeJS.ProcessEnv, print: (text: string) => void): Promise<Totals> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [...process.execArgv, files, ...args], { env, stdio: ['inherit', 'pipe', 'inherit'] });
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => child.kill(signal));
    let last = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      last = (last + text).slice(-200);
      print(text);
    });
    child.on('error', (error) => resolve(lost(error)));
    child.on('close', (code, signal) => {
      const totals = totalsOf(last);
      if (code === null) resolve(lost(`the tests were ended by ${signal}`));
      else if (totals === undefined || (code === 0) !== (totals.failed === 0)) resolve(lost(`the tests ended with code ${code}, and counted ${JSON.stringify(totals)}`));
      else resolve(totals);
    });
  });
}

/** Children that run one after the other; what they print is kept until `turn` comes. */
async function runLane(lane: readonly (readonly string[])[], env: NodeJS.ProcessEnv, turn: Promise<unknown>): Promise<Totals> {
  let kept = '';
  let print = (text: string): void => void (kept += text);
  void turn.then(() => {
    process.stdout.write(kept);
    print = (text) => void process.stdout.write(text);
  });
  let totals = none;
  for (const args of lane) totals = sum(totals, await runChild([...given, ...args], env, (text) => print(text)));
  await turn;
  return totals;
}

async function run(): Promise<Totals> {
  const env = await adapterEnvironment();
  // Of a few files one child runs all.
  if (given.some((argument, i) => !argument.startsWith('--') && given[i - 1] !== '--kind')) return runLane([[]], env, Promise.resolve());
  const first = runLane([['--only', 'cpu'], ['--only', 'browser']], env, Promise.resolve());
  const beside = runLane([['--only', 'gpu']], env, first);
  return sum(await first, await beside);
}

const totals = await run().catch(lost);
console.log(summary(totals));
process.exitCode = totals.failed === 0 ? 0 : 1;
