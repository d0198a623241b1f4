/** The packed package, installed in an empty project: made once for all tests of a process. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transform } from 'esbuild';

export const root = fileURLToPath(new URL('../..', import.meta.url));
const windows = process.platform === 'win32';
const npm = windows ? 'npm.cmd' : 'npm';

/** What a program prints. Throws all of it where the program fails. */
async function run(command: string, args: readonly string[], cwd: string, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'], shell: windows && command.endsWith('.cmd') });
  let [printed, complaints] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (printed += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text));
  const status = await new Promise((resolve, reject) => child.on('error', reject).on('close', (code, signal) => resolve(signal ?? code)));
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${printed}${complaints}`);
  return printed;
}

/** All files below a folder, as paths with slashes. */
export const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => statSync(join(folder, file)).isFile()).map((file) => file.split(sep).join('/')).sort();

export interface Manifest {
  readonly exports: { readonly [entry: string]: string | { readonly types: string; readonly default: string } };
  readonly scripts: { readonly [script: string]: string };
  readonly dependencies: { readonly [name: string]: string };
  readonly peerDependencies: { readonly [name: string]: string };
  readonly peerDependenciesMeta: { readonly [name: string]: { readonly optional?: boolean } };
  readonly engines: { readonly node: string };
}

export const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Manifest;

/** What programs import: `fp8-kv`, `fp8-kv/oracle` … */
export const entries = Object.entries(manifest.exports).filter(([, file]) => typeof file !== 'string').map(([entry]) => `fp8-kv${entry.slice(1)}`);

export interface Project {
  /** Where it is. */
  readonly folder: string;
  /** The package within it. */
  readonly installed: string;
  /** Its command. */
  readonly bin: string;
  /** Writes a file there. */
  write(name: string, text: string): void;
  /** What a program prints there. */
  run(command: string, args: readonly string[], env?: NodeJS.ProcessEnv): Promise<string>;
}

async function make(): Promise<Project> {
  const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-package-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  // dist/ is what `npm run build` made: hooks would make it once more.
  await run(npm, ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder], root);
  const tarball = readdirSync(folder).find((file) => file.endsWith('.tgz'))!;
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  await run(npm, ['install', '--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', `./${tarball}`], folder);
  const { code } = await transform(readFileSync(new URL('program.ts', import.meta.url), 'utf8'), { loader: 'ts', target: 'es2022' });
  writeFileSync(join(folder, 'program.js'), code);
  return {
    folder,
    installed: join(folder, 'node_modules', 'fp8-kv'),
    bin: join(folder, 'node_modules', '.bin', windows ? 'fp8-kv.cmd' : 'fp8-kv'),
    write: (name, text) => writeFileSync(join(folder, name), text),
    run: (command, args, env) => run(command, args, folder, env),
  };
}

let made: Promise<Project> | undefined;

/** The project, in which `program.js` is program.ts. */
export const project = (): Promise<Project> => (made ??= make());
