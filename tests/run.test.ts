import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { is, match } from 'uvu/assert';
import { packaged } from './gpu/unpack.js';
import { suite } from './suite.js';

const test = suite('the test runner');

function run(args: string[], env: NodeJS.ProcessEnv = {}): { status: number | null; lastLine: string; stdout: string; stderr: string } {
  const runner = fileURLToPath(new URL('run.ts', import.meta.url));
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', runner, ...args], { encoding: 'utf8', env: { ...process.env, ...env } });
  return { status, lastLine: stdout.trimEnd().split('\n').at(-1)!, stdout, stderr };
}

test('hooks that throw, hangs, failures and empty suites count as failures', () => {
  const { status, lastLine, stderr } = run(['--kind', 'fixture', 'failures']);
  is(lastLine, '2 passed, 5 failed, 0 skipped');
  is(status, 1);
  for (const reason of [/from a hook/, /from an after hook/, /"never ends" took longer than 0.2 s/, /as it should/, /suite "empty" has no test/]) match(stderr, reason);
});

test('what failed stands once more above the last line', () => {
  const { stdout } = run(['--kind', 'fixture', 'failures']);
  const [, again] = stdout.split('What was complained of, once more:');
  for (const reason of [/from a hook/, /as it should/, /suite "empty" has no test/, /2 passed, 5 failed, 0 skipped\n$/]) match(again, reason);
});

test('a process that ends too early fails', () => {
  const { status, lastLine } = run(['--kind', 'fixture', 'exits']);
  is(lastLine, '0 passed, 1 failed, 0 skipped');
  is(status, 1);
});

test('a process that is killed fails', () => {
  const { status, lastLine, stderr } = run(['--kind', 'fixture', 'killed']);
  is(lastLine, '0 passed, 1 failed, 0 skipped');
  is(status, 1);
  match(stderr, /ended by SIGKILL/);
});

test('names that match no file fail', () => {
  const { status, lastLine } = run(['no such test']);
  is(lastLine, '0 passed, 1 failed, 0 skipped');
  is(status, 1);
});

test('a suite without an adapter is skipped, and says why', () => {
  const { status, lastLine, stdout } = run(['--kind', 'fixture', 'skips'], { REQUIRE_GPU: '' });
  is(lastLine, '1 passed, 0 failed, 3 skipped');
  is(status, 0);
  match(stdout, /2 skipped: suite "needs a GPU", there is none/);
});

test('where a GPU is required it fails, but for what need not be there', () => {
  const { status, lastLine, stderr } = run(['--kind', 'fixture', 'skips'], { REQUIRE_GPU: '1' });
  is(lastLine, '1 passed, 2 failed, 1 skipped');
  is(status, 1);
  match(stderr, /suite "needs a GPU" may not be skipped: there is none/);
});

if (packaged) {
  test('files in a folder webgpu are run once more in a page', () => {
    const { status, lastLine, stdout, stderr } = run(['--kind', 'fixture', 'webgpu/page'], { REQUIRE_GPU: '' });
    is(lastLine, '6 passed, 3 failed, 2 skipped');
    is(status, 1);
    for (const reason of [/"needs a GPU", Node has none/, /"needs a GPU", the page has none/]) match(stdout, reason);
    for (const reason of [/as it should/, /tests\/runner\/webgpu\/page\.fixture\.ts:\d+:/, /"never ends" took longer than 0.2 s/, /outside of any test: Error: nobody waits/]) match(stderr, reason);
  });

  test('where a GPU is required, the page needs one too', () => {
    is(run(['--kind', 'fixture', 'webgpu/page'], { REQUIRE_GPU: '1' }).lastLine, '6 passed, 5 failed, 0 skipped');
  });

  test('a page that ends too early fails', () => {
    const { status, lastLine, stderr } = run(['--kind', 'fixture', 'webgpu/leaves']);
    is(lastLine, '3 passed, 1 failed, 0 skipped');
    is(status, 1);
    match(stderr, /the page is gone, last in leaves, "for another page"/);
  });

  test('--no-browser opens no page', () => {
    const { status, lastLine } = run(['--kind', 'fixture', '--no-browser', 'webgpu/leaves']);
    is(lastLine, '2 passed, 0 failed, 0 skipped');
    is(status, 0);
  });
}
