/** The packages that adapters are for, each with a lockfile of its own, so that nobody installs them who does not test these. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const cache = join(root, 'node_modules/.cache/adapters');
const files = ['package.json', 'package-lock.json', '.npmrc'];

function install(from: string, into: string): void {
  for (const file of files) copyFileSync(join(from, file), join(into, file));
  const { status, stdout, stderr, error } = spawnSync('npm', ['ci', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'], { cwd: into, encoding: 'utf8', shell: process.platform === 'win32' });
  if (status !== 0) throw new Error(`npm ci of ${from} ended with ${error ?? status}: the adapters' tests need the registry once.\n${stdout}${stderr}`);
  // Beside them, as in a project that has both. Relative: where a clone is moved or copied, its own build is tested.
  const modules = join(into, 'node_modules');
  symlinkSync(relative(modules, root), join(modules, 'fp8-kv'), 'junction');
}

/**
 * A project in which `fp8-kv`, as it is built, and the packages of tests/adapters/NAME are installed: for as long as their lockfile
 * stays as it is.
 */
export function installed(name: string): string {
  const from = join(root, 'tests/adapters', name);
  const hash = createHash('sha256');
  for (const file of files) hash.update(readFileSync(join(from, file)));
  const folder = join(cache, `${name}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  for (const old of readdirSync(cache)) if (old.startsWith(`${name}-`)) rmSync(join(cache, old), { recursive: true });
  const unfinished = mkdtempSync(join(cache, '.unfinished-'));
  try {
    install(from, unfinished);
    renameSync(unfinished, folder);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return folder;
}

/** The examples of docs/adapters.md, in their order. */
export const examples = (): string[] => [...readFileSync(join(root, 'docs/adapters.md'), 'utf8').matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code);

/** Checks a program against the declarations of the package that it is for, and ours. @throws Error with what tsc complains of */
export function typeCheck(folder: string, program: string): void {
  writeFileSync(join(folder, 'example.ts'), program);
  const options = { module: 'nodenext', target: 'es2022', strict: true, noEmit: true, skipLibCheck: true, lib: ['es2022', 'dom', 'esnext.disposable'], types: [] };
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['example.ts'] }));
  const { status, stdout } = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stdout);
}
