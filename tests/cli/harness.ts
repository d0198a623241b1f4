/** The command line as tests run it: in a process and a folder of its own. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { is, match } from 'uvu/assert';
import { readAppendCase, runAppendCase } from '../../src/files/append-case.js';
import { serializeSafetensors } from '../../src/files/safetensors.js';
import type { SafetensorsDtype, Tensor } from '../../src/files/tensor.js';
import { wasmBackend } from '../../src/index.js';
import type { Random } from '../random.js';

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const loader = import.meta.resolve('tsx');

export interface Run {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

const LISTENS = 'listens for Ctrl-C\n';
const tellsOfListener = `data:text/javascript,${encodeURIComponent(`process.on('newListener', (name) => void (name === 'SIGINT' && setImmediate(() => process.stdout.write(${JSON.stringify(LISTENS)}))))`)}`;

/** @param nodeOptions what Node is started with, beside */
export function commandLine(nodeOptions: readonly string[] = []) {
  const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-'));
  return {
    folder,
    run: (...args: string[]): Promise<Run> =>
      new Promise((resolve) => {
        const command = ['--import', loader, ...nodeOptions, main, ...args];
        const child = execFile(process.execPath, command, { cwd: folder }, (_, out, err) => resolve({ code: child.exitCode ?? -1, out, err }));
      }),
    /** Ctrl-C, as soon as the command listens for it. */
    interrupt: (...args: string[]): Promise<Run> =>
      new Promise((resolve) => {
        const command = ['--import', loader, '--import', tellsOfListener, main, ...args];
        const child = execFile(process.execPath, command, { cwd: folder }, (_, out, err) => resolve({ code: child.exitCode ?? -1, out: out.replace(LISTENS, ''), err }));
        child.stdout!.on('data', (text) => void (`${text}`.includes(LISTENS) && child.kill('SIGINT')));
      }),
    put: (name: string, bytes: Uint8Array): void => writeFileSync(join(folder, name), bytes),
    get: (name: string): Uint8Array => Uint8Array.from(readFileSync(join(folder, name))),
    remove: (): void => rmSync(folder, { recursive: true }),
  };
}

/** Exit code, nothing but one line on stderr, and what it says. */
export function assertFailed({ code, out, err }: Run, expected: number, message: RegExp): void {
  match(err, message);
  match(err, /^[^\n]+\n$/);
  is(out, '');
  is(code, expected);
}

/** Exit code 0, nothing on stderr. */
export function assertDone({ code, err }: Run): void {
  is(err, '');
  is(code, 0);
}

export const bytesOf = (values: ArrayBufferView): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
export const tensor = (dtype: SafetensorsDtype, shape: readonly number[], values: ArrayBufferView): Tensor => ({ dtype, shape, data: bytesOf(values) });

/** An append case, with the cache that it must give. */
export async function appendCase(numbers: Random): Promise<Uint8Array> {
  const tensors = new Map([
    ['key', tensor('F32', [3, 2, 8], numbers.normals(48))],
    ['value', tensor('F32', [3, 2, 8], numbers.normals(48))],
    ['slot_mapping', tensor('I32', [3], Int32Array.of(5, -1, 2))],
  ]);
  const texts = { fp8_kv_case: 'append/1', layout: 'NHD', kv_cache_dtype: 'fp8_e4m3', granularity: 'token-head', blocks: '2', block_size: '3' };
  const stated = new Map(Object.entries(texts));
  const result = await runAppendCase(wasmBackend(), readAppendCase(serializeSafetensors(tensors, stated), 'case'));
  for (const [name, each] of result.tensors) tensors.set(`expected.${name}`, each);
  return serializeSafetensors(tensors, stated);
}

