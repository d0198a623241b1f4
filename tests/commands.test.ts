/**
 * The command lines of README.md and of docs/, typed as a reader would: in an empty folder beside the packed package, one
 * document after the other, each line in a shell of its own. Blocks of `sh` are run; those of `console` are run, too, and
 * must print what the document shows.
 */
import { execFile, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { equal, is, ok } from 'uvu/assert';
import { serializeNpy } from '../src/files/npy.js';
import { random } from './random.js';
import { suite } from './suite.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> };

/** Languages of blocks that are nobody's command: shown, or run by readme.test.ts (`js`). */
const shown = ['js', 'ts', 'json', 'html', 'http', 'python', 'text', 'wgsl', ''];

interface Special {
  readonly why: string;
  /** Looked at in place of running the line. */
  readonly instead?: () => void;
  /** Added to the line, so that it ends soon. */
  readonly add?: string;
  /** The exit code that the document speaks of: 0 unless stated. */
  readonly exits?: number;
}

const hasScripts = (...names: string[]) => () => names.forEach((name) => ok(scripts[name], `package.json has no script "${name}"`));
const tested = (file: string, command: RegExp) => () => ok(command.test(readFileSync(join(root, file), 'utf8')), `${file} does not run it`);

/** Lines that are not run as they stand. Whatever is not named here is. */
const special: { readonly [line: string]: Special } = {
  'npm ci && npm run demo': { why: 'it is for a clone; tests/demo/ runs the demo', instead: hasScripts('demo') },
  'npx fp8-kv check --input edges/input.npy --codes loose.npy': { why: 'what differs is what it is for', exits: 1 },
  'npx fp8-kv tune -o tuning.json': { why: 'it needs a GPU, and minutes on SwiftShader; tests/webgpu/ tunes small shapes', instead: tested('tests/webgpu/tuning.test.ts', /await tuneWebgpu\(/) },
  'npx fp8-kv doctor --align': { why: 'it needs a GPU; tests/cli/gpu.test.ts runs it on one', instead: tested('tests/cli/gpu.test.ts', /'doctor', '--align'/) },
  'npx fp8-kv evaluate --model orator --text orator/eval.txt -o report.html': { why: 'the whole text takes a minute', add: '--limit 320' },
  'npx fp8-kv evaluate --model orator --text orator/eval.txt --scales one,tensor,head,channel,token-head,group --observers minmax,mse': {
    why: 'the whole text takes minutes',
    add: '--limit 320',
  },
};

/** @returns the blocks of code of a document: language and text. */
function blocksOf(document: string): { language: string; text: string }[] {
  const blocks = [...readFileSync(join(root, document), 'utf8').matchAll(/^ *```([\w-]*)[^\n]*\n(.*?)^ *```$/gms)];
  return blocks.map(([, language, text]) => ({ language, text }));
}

/** @returns the command lines of a block: without comments, and with what is continued after a backslash. */
function linesOf(block: string): string[] {
  const lines = block.replaceAll(/\\\n\s*/g, '').split('\n');
  return lines.map((line) => line.replace(/(^|\s)#.*$/, '').trim()).filter((line) => line !== '');
}

const project = mkdtempSync(join(tmpdir(), 'fp8-kv-commands-'));
let tarball = '';

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a line in a shell. npx may run what is installed, and fetch nothing. */
function run(line: string, cwd: string): Promise<Ended> {
  const env = { ...process.env, PATH: `${join(project, 'node_modules', '.bin')}${delimiter}${process.env.PATH}`, npm_config_yes: 'false', npm_config_prefer_offline: 'true', npm_config_audit: 'false', npm_config_fund: 'false', npm_config_ignore_scripts: 'true' };
  return new Promise((resolve) => {
    const child = execFile('sh', ['-c', line], { cwd, env }, (_, out, err) => resolve({ code: child.exitCode ?? -1, out, err }));
  });
}

/** Runs a line of a document, and asserts that it ends as the document has it. @returns what it printed */
async function follow(line: string, cwd: string, throughNpx = false): Promise<string | undefined> {
  const { instead, add = '', exits = 0 } = special[line] ?? {};
  if (instead) return void instead();
  // The package is this one, not the registry's. Once README.md has shown that npx finds the command, it is run without npx, which takes a second.
  const command = line.startsWith('npm install ') ? line.replace(/(?<= )fp8-kv(?= |$)/, tarball) : throughNpx ? line : line.replace(/\bnpx (?=fp8-kv )/, '');
  const { code, out, err } = await run(`${command} ${add}`, cwd);
  is(code, exits, `${command} ${add} ended with ${code}:\n${out}${err}`);
  return out;
}

/** Which build of the kernels runs is the machine's affair. */
const anyBuild = (text: string): string => text.replace(/\b(baseline|relaxed) build/, 'this build').trim();

const setup = suite('the packed package');
setup('is installed beside the folders', async () => {
  const { status, stdout, stderr } = spawnSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', project], { cwd: root, encoding: 'utf8' });
  is(status, 0, stdout + stderr);
  tarball = join(project, readdirSync(project).find((file) => file.endsWith('.tgz'))!);
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'reader', private: true, type: 'module' }));
  const { code, err } = await run(`npm install ${tarball}`, project);
  is(code, 0, err);
}, { seconds: 120 });

const documents = ['README.md', ...readdirSync(join(root, 'docs')).filter((file) => file.endsWith('.md')).map((file) => `docs/${file}`)];
const typed = new Set<string>();

for (const document of documents) {
  const test = suite(`the commands of ${document}`);
  const blocks = blocksOf(document);
  const cwd = join(project, basename(document, '.md'));

  test.before(() => {
    mkdirSync(cwd, { recursive: true });
    // What documents say the reader has: a model, and some numbers.
    cpSync(join(root, 'demo', 'models', 'orator'), join(cwd, 'orator'), { recursive: true });
    writeFileSync(join(cwd, 'x.npy'), serializeNpy('<f4', [16, 64], new Uint8Array(random(1).normals(16 * 64).buffer)));
  });
  test.after(() => rmSync(cwd, { recursive: true }));

  test('every block is run, or of a language that is shown only', () => {
    for (const { language } of blocks) ok(['sh', 'console', ...shown].includes(language), `a block of "${language}" is not known here`);
  });

  for (const { language, text } of blocks) {
    if (language === 'sh') {
      for (const line of linesOf(text)) {
        typed.add(line);
        test(line, async () => void (await follow(line, cwd, document === 'README.md')), { seconds: 120 });
      }
    } else if (language === 'console') {
      for (const [, line, output] of text.matchAll(/^\$ ([^\n]*)\n(.*?)(?=^\$ |$(?![^]))/gms)) {
        typed.add(line);
        test(`${line}, and what it prints`, async () => is(anyBuild((await follow(line, cwd))!), anyBuild(output)), { seconds: 120 });
      }
    }
  }
}

const teardown = suite('the lines that are not run as they stand');
teardown('are those of some document', () => {
  equal(Object.keys(special).filter((line) => !typed.has(line)), []);
});
teardown.after(() => rmSync(project, { recursive: true }));
