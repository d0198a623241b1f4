/** What .github/workflows/ must say, checked as text, and the one step of shell that decides something, run. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { equal, is, match, ok } from 'uvu/assert';
import { suite } from './suite.js';

const test = suite('workflows');
const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(root, '.github', 'workflows');
const files = readdirSync(folder).sort();
const textOf = (file: string): string => readFileSync(join(folder, file), 'utf8');
const { scripts, engines } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string>; engines: { node: string } };

test('are those for tests, slow tests and publishing', () => {
  equal(files, ['publish.yml', 'slow.yml', 'test.yml']);
});

for (const file of files) {
  const text = textOf(file);
  const lines = text.split('\n');

  test(`${file}: is laid out as YAML wants it`, () => {
    ok(text.endsWith('\n'));
    for (const line of lines) {
      ok(!line.includes('\t') && !/\s$/.test(line), line);
      is(line.search(/\S|$/) % 2, 0, `two spaces a level: ${line}`);
      // Comments and items aside, a line is a key, or shell in a block.
      if (!/^ *(#|$)/.test(line) && !/^ {10}\S/.test(line)) match(line, /^ *(- )?([\w.-]+:( |$)|- )/);
    }
    equal(lines.filter((line) => /^[a-z]/.test(line)).map((line) => line.split(':')[0]).filter((key) => key !== 'concurrency'), ['name', 'on', 'permissions', 'jobs']);
  });

  test(`${file}: may read only, runs actions by commit, and ends some time`, () => {
    match(text, /^permissions:\n {2}contents: read\n/m);
    for (const [, action] of text.matchAll(/uses: (.*)/g)) match(action, /^actions\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
    is(text.match(/runs-on:/g)?.length, text.match(/timeout-minutes:/g)?.length);
    is(text.match(/actions\/checkout@/g)?.length, text.match(/persist-credentials: false/g)?.length);
  });

  test(`${file}: runs what is there`, () => {
    const commands = [...text.matchAll(/npm run ([\w:]+)/g)].map(([, script]) => script);
    for (const script of commands) ok(script in scripts, script);
    ok(commands.length > 0);
  });
}

test('an action has one commit in all files', () => {
  const commits = new Map<string, string>();
  for (const [, action, commit] of files.map(textOf).join('').matchAll(/uses: ([^@]*)@(\w+)/g)) is(commits.get(action) ?? commit, commits.set(action, commit).get(action));
});

test('what the tests of pages saw is kept, also where they failed', () => {
  match(textOf('test.yml'), /- run: \.ci\/run\n(?: +#.*\n)? +- if: \$\{\{ !cancelled\(\) \}\}\n +uses: actions\/upload-artifact@(?:.*\n)+? +path: build\/pictures\/\n/);
});

test('the oldest Node that the package is for is among those it is tested on', () => {
  match(textOf('test.yml'), new RegExp(`node: \\['${engines.node.replace('>=', '')}', `));
});

test('only the job that publishes may sign, and it runs nothing of the project', () => {
  for (const file of files) is(textOf(file).match(/: write/g)?.length ?? 0, file === 'publish.yml' ? 1 : 0);
  const [before, publish] = textOf('publish.yml').split('\n  publish:\n');
  ok(!before.includes('secrets.') && !before.includes('id-token'));
  equal([...publish.matchAll(/run: (.*)/g)].map(([, command]) => command), ['npm publish ./packed/*.tgz --provenance --access public --ignore-scripts']);
  ok(!publish.includes('checkout'));
});

test('a tag that is not the version, or has no entry in the changelog, is not published', () => {
  const [, block] = /run: \|\n((?: {10}.*\n)+)/.exec(textOf('publish.yml'))!;
  const project = mkdtempSync(join(tmpdir(), 'fp8-kv-tag-'));
  const check = (tag: string, changelog: string): number | null => {
    writeFileSync(join(project, 'package.json'), '{"version":"1.2.3"}');
    writeFileSync(join(project, 'CHANGELOG.md'), `# Changelog\n\n${changelog}\n`);
    return spawnSync('bash', ['-e', '-c', block], { cwd: project, env: { ...process.env, GITHUB_REF_NAME: tag } }).status;
  };
  is(check('v1.2.3', '## 1.2.3, 2026-11-22'), 0);
  is(check('v1.2.4', '## 1.2.3, 2026-11-22'), 1);
  is(check('v1.2.3', '## 1.2.3, unreleased'), 1);
  rmSync(project, { recursive: true });
});
