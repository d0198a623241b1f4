/**
 * Runs the tests: `node --import tsx tests/run.ts [--kind test|slow] [part of a path …]`.
 * Every `*.test.ts`, or every `*.slow.ts`, whose path contains one of the parts. The last line counts.
 */
import { readdirSync } from 'node:fs';
import { relative, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import type { RegisteredSuite } from './suite.js';

type UvuRunner = () => Promise<[errors: string | true, passed: number, skipped: number, total: number]>;
const uvu = globalThis as unknown as { UVU_DEFER: boolean; UVU_QUEUE: UvuRunner[][]; UVU_INDEX: number };
// Set before uvu loads: it then leaves the running to us.
uvu.UVU_DEFER = true;
uvu.UVU_QUEUE = [[]];
uvu.UVU_INDEX = 0;
const { registered } = await import('./suite.js');

const { values: options, positionals: parts } = parseArgs({ options: { kind: { type: 'string', default: 'test' } }, allowPositionals: true });
const root = fileURLToPath(new URL('.', import.meta.url));
const suffix = `.${options.kind}.ts`;
const files = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .map((file) => file.split(sep).join('/'))
  .filter((file) => file.endsWith(suffix) && (parts.length === 0 || parts.some((part) => file.includes(part))))
  .sort();

let passed = 0;
let failed = 0;
let finished = false;
const fail = (count: number, reason: string): void => {
  failed += count;
  console.error(reason);
};
const summary = (): void => console.log(`\n${passed} passed, ${failed} failed, 0 skipped`);

// A test that ends the process, or leaves nothing to wait for, must not look like success.
process.on('exit', () => {
  if (finished) return;
  process.exitCode = 1;
  fail(1, 'the process ended before the tests did');
  summary();
});

async function runSuite(suite: RegisteredSuite): Promise<void> {
  if (suite.tests === 0) return fail(1, `suite "${suite.name}" has no test`);
  suite.enqueue();
  const [errors, ran, skipped, total] = await uvu.UVU_QUEUE[0].shift()!();
  passed += ran;
  const missing = suite.tests - ran;
  if (missing > 0) fail(missing, errors === true ? '' : errors);
  if (total !== suite.tests || skipped !== 0) fail(1, `suite "${suite.name}" registered ${suite.tests} tests, uvu saw ${total} and skipped ${skipped}`);
  for (const error of suite.hookErrors) fail(missing > 0 ? 0 : 1, `suite "${suite.name}", hook: ${(error as Error)?.stack ?? String(error)}`);
}

for (const file of files) {
  console.log(`\n${file}`);
  try {
    await import(pathToFileURL(root + file).href);
  } catch (error) {
    fail(1, `${relative(process.cwd(), root + file)} did not load: ${(error as Error)?.stack ?? String(error)}`);
  }
  const suites = registered.splice(0);
  if (suites.length === 0) fail(1, `${file} has no suite`);
  for (const suite of suites) await runSuite(suite);
}
if (files.length === 0) fail(1, `no test file matches ${parts.join(' ') || suffix}`);
finished = true;
summary();
process.exitCode = failed === 0 ? 0 : 1;
