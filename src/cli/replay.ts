/** What `attend` and `append` share: many case files, one backend, a line or a JSON entry for each. */
import { mkdirSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import type { Backend } from '../backend.js';
import { wasmBackend } from '../wasm/open.js';
import { requestWebgpuBackend } from '../webgpu/open.js';
import { parse, readBytes, UsageError } from './command.js';
import { checkWritable, writeWhole } from './output.js';

/** How one case went. */
export interface Outcome {
  /** The result as a file. */
  readonly result: Uint8Array;
  /** Why it is not what the case expects; absent where it is, or where the case expects nothing. */
  readonly difference?: string;
  /** What to report beside. */
  readonly figures: Readonly<Record<string, number | string>>;
}

type Replay = (backend: Backend, bytes: Uint8Array, file: string) => Promise<Outcome>;

interface Report {
  readonly case: string;
  readonly ok: boolean;
  readonly output?: string;
  readonly reason?: string;
  readonly figures?: Outcome['figures'];
}

export const REPLAY_DETAILS = `  -o FILE                where to write the result of a single case
  --out-dir DIR          where to write each result, under its case's file name
  --backend wasm|webgpu  what runs the cases: wasm (default), or a GPU, for which Node needs the package "webgpu"
  --json                 print one JSON value instead of text

A case that holds expected tensors is compared with them. Exit code 1 when one differs or fails.
Programs write cases with FP8_KV_RECORD=DIR in their environment: of each append and attend on the CPU, before it runs.`;

/** How to open the backend of this name. */
function opener(name = 'wasm'): () => Backend | Promise<Backend> {
  if (name === 'wasm') return wasmBackend;
  if (name === 'webgpu') return requestWebgpuBackend;
  throw new UsageError(`--backend expected wasm or webgpu, got ${name}`);
}

/** Where each case's result goes: settled before the first is run. */
function outputs(cases: readonly string[], file: string | undefined, directory: string | undefined): (string | undefined)[] {
  if (cases.length === 0) throw new UsageError('expected case files, got none');
  if (file !== undefined && directory !== undefined) throw new UsageError('expected -o or --out-dir, got both');
  if (file !== undefined && cases.length > 1) throw new UsageError(`-o is for a single case, got ${cases.length}: use --out-dir`);
  const names = cases.map((path) => basename(path));
  const repeated = names.find((name, i) => names.indexOf(name) !== i);
  if (directory !== undefined && repeated !== undefined) throw new UsageError(`--out-dir expected cases with different file names, got ${repeated} twice`);
  const targets = names.map((name) => (directory === undefined ? file : join(directory, name)));
  const overwritten = cases.find((path, i) => targets[i] !== undefined && resolve(targets[i]) === resolve(path));
  if (overwritten !== undefined) throw new UsageError(`expected a result file other than the case, got ${overwritten} for both`);
  if (directory !== undefined) mkdirSync(directory, { recursive: true });
  for (const target of targets) if (target !== undefined) checkWritable(target);
  return targets;
}

async function runCase(replay: Replay, backend: Backend, path: string, output: string | undefined): Promise<Report> {
  try {
    const { result, difference, figures } = await replay(backend, readBytes(path), basename(path));
    if (output !== undefined) writeWhole(output, result);
    return { case: path, ok: difference === undefined, output, reason: difference, figures };
  } catch (error) {
    return { case: path, ok: false, reason: (error as Error).message };
  }
}

function line({ case: path, ok, reason, figures }: Report): string {
  const name = basename(path);
  // A FormatError names the file by itself.
  if (!ok) return `FAILED ${reason?.startsWith(name) ? '' : `${name}: `}${reason}`;
  return `ok ${name}: ${Object.entries(figures ?? {}).map(([name, value]) => `${name} ${value}`).join(', ')}`;
}

/** Runs the command line of `attend` or `append`. */
export async function replayCases(args: string[], replay: Replay): Promise<number> {
  const { values, positionals } = parse(args, {
    output: { type: 'string', short: 'o' },
    'out-dir': { type: 'string' },
    backend: { type: 'string' },
    json: { type: 'boolean' },
  });
  const open = opener(values.backend);
  const targets = outputs(positionals, values.output, values['out-dir']);
  const backend = await open();
  const reports: Report[] = [];
  for (const [i, path] of positionals.entries()) {
    const report = await runCase(replay, backend, path, targets[i]);
    reports.push(report);
    if (!values.json) (report.ok ? console.log : console.error)(line(report));
  }
  const failed = reports.filter(({ ok }) => !ok).length;
  if (values.json) console.log(JSON.stringify({ backend: backend.kind, cases: reports, failed }));
  else if (reports.length > 1) console.log(`${reports.length - failed} of ${reports.length} cases ok`);
  backend.dispose();
  return failed === 0 ? 0 : 1;
}
