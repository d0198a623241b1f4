import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { is, match } from 'uvu/assert';
import { suite } from './suite.js';

const test = suite('the test runner');

function run(...args: string[]): { status: number | null; lastLine: string; stderr: string } {
  const runner = fileURLToPath(new URL('run.ts', import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', runner, ...args], { encoding: 'utf8' });
  return { status, lastLine: stdout.trimEnd().split('\n').at(-1)!, stderr };
}

test('hooks that throw, hangs, failures and empty suites count as failures', () => {
  const { status, lastLine, stderr } = run('--kind', 'fixture', 'failures');
  is(lastLine, '2 passed, 5 failed, 0 skipped');
  is(status, 1);
  for (const reason of [/from a hook/, /from an after hook/, /"never ends" took longer than 0.2 s/, /as it should/, /suite "empty" has no test/]) match(stderr, reason);
});

test('a process that ends too early fails', () => {
  const { status, lastLine } = run('--kind', 'fixture', 'exits');
  is(lastLine, '0 passed, 1 failed, 0 skipped');
  is(status, 1);
});

test('names that match no file fail', () => {
  const { status, lastLine } = run('no such test');
  is(lastLine, '0 passed, 1 failed, 0 skipped');
  is(status, 1);
});
