/**
 * Runs the tests: `node --import tsx tests/run.ts [--kind test|slow] [--no-browser] [part of a path …]`.
 * Every `*.test.ts`, or every `*.slow.ts`, whose path contains one of the parts; those in a folder `webgpu` once more in Chromium.
 * Those named `browser.…` look at a page in Chromium from Node.
 * The last line counts. The work is done by children: the environment that gives WebGPU its adapter must be there when a
 * process starts, and a whole run takes half as long in two of them, since most tests keep one core busy.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { adapterEnvironment } from './gpu/environment.js';
import { sum, summary, totalsOf, type Totals } from './runner/loop.js';

const files = fileURLToPath(new URL('runner/files.ts', import.meta.url));
const given = process.argv.slice(2);
const none: Totals = { passed: 0, failed: 0, skipped: 0 };

/** What was said on stderr: it is far above the last line, and between what passed, when all is done. */
let complaints = '';

function complain(text: string): void {
  process.stderr.write(text);
  complaints += text;
}

/** Counts a child that left no count. */
function lost(reason: unknown): Totals {
  complain(`${reason instanceof Error ? reason.stack : String(reason)}\n`);
  return { ...none, failed: 1 };
}

/** Runs some files in a child, which prints through `print`. */
function runChild(args: readonly string[], env: NodeJS.ProcessEnv, print: (text: string) => void): Promise<Totals> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [...process.execArgv, files, ...args], { env, stdio: ['inherit', 'pipe', 'pipe'] });
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => child.kill(signal));
    let last = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      last = (last + text).slice(-200);
      print(text);
    });
    child.stderr.setEncoding('utf8').on('data', complain);
    child.on('error', (error) => resolve(lost(error)));
    child.on('close', (code, signal) => {
      const totals = totalsOf(last);
      if (code === null) resolve(lost(`the tests were ended by ${signal}`));
      else if (totals === undefined || (code === 0) !== (totals.failed === 0)) resolve(lost(`the tests ended with code ${code}, and counted ${JSON.stringify(totals)}`));
      else resolve(totals);
    });
  });
}

/** What runs apart: the longest first, since cores take the next when they are done with one. */
const parts = ['webgpu', 'cpu', 'browser', 'gpu'];
const ATONCE = 2;

/** Runs all parts, some at once, each of which prints once those before it are done. */
async function runParts(env: NodeJS.ProcessEnv): Promise<Totals> {
  const kept = parts.map(() => '');
  const results: (Totals | undefined)[] = parts.map(() => undefined);
  let printing = 0;
  const print = (part: number, text: string): void => {
    if (part === printing) process.stdout.write(text);
    else kept[part] += text;
  };
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < parts.length) {
      const part = next++;
      results[part] = await runChild([...given, '--only', parts[part]], env, (text) => print(part, text));
      while (results[printing]) process.stdout.write(kept[++printing] ?? '');
    }
  };
  await Promise.all(Array.from({ length: ATONCE }, work));
  return results.reduce<Totals>((all, each) => sum(all, each!), none);
}

async function run(): Promise<Totals> {
  const env = await adapterEnvironment();
  // Of a few files one child runs all.
  const few = given.some((argument, i) => !argument.startsWith('--') && given[i - 1] !== '--kind');
  return few ? runChild(given, env, (text) => void process.stdout.write(text)) : runParts(env);
}

const totals = await run().catch(lost);
if (totals.failed > 0) console.log(`\nWhat was complained of, once more:\n${complaints}`);
console.log(summary(totals));
process.exitCode = totals.failed === 0 ? 0 : 1;
