/** A folder, or a file, of the machine that this runs on: in Node and what is like it. */
import type { CheckpointSource } from './source.js';

// Not imported: bundlers for browsers would look for the modules.
const builtin = globalThis.process?.getBuiltinModule;

/** @throws TypeError where there are no files: in a browser */
export function pathOf(place: string | URL): string {
  if (builtin === undefined) throw new TypeError(`"source" expected a URL, a Blob or files by name, as there are no paths here, got ${JSON.stringify(String(place))}`);
  return typeof place === 'string' ? place : builtin('node:url').fileURLToPath(place);
}

/** What could be the name of a repository: others take those for places. */
const repository = /^[\w.-]+\/[\w.-]+$/;

/** @throws Error naming the path where there is nothing */
export async function fileSource(path: string): Promise<CheckpointSource> {
  const { readdir, stat } = builtin('node:fs/promises');
  const { basename, join } = builtin('node:path');
  const found = await stat(path).catch((error: unknown) => {
    if (!isMissing(error)) throw error;
    throw new Error(`${path}: there is nothing at this path${repository.test(path) ? `; a repository of Hugging Face is named by its URL, https://huggingface.co/${path}` : ''}`, { cause: error });
  });
  if (!found.isDirectory()) return { name: path, only: basename(path), read: (_, begin, end) => readPiece(path, begin, end) };
  return {
    name: path,
    list: async () => (await readdir(path)).sort(),
    read: (file, begin, end) => readPiece(join(path, file), begin, end),
  };
}

const isMissing = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === 'ENOENT';

async function readPiece(path: string, begin: number, end: number): Promise<Uint8Array | undefined> {
  const file = await builtin('node:fs/promises').open(path).catch((error: unknown) => {
    if (isMissing(error)) return undefined;
    throw error;
  });
  if (file === undefined) return undefined;
  try {
    const { size } = await file.stat();
    const bytes = new Uint8Array(Math.max(0, Math.min(end, size) - begin));
    let read = 0;
    while (read < bytes.length) {
      const { bytesRead } = await file.read(bytes, read, bytes.length - read, begin + read);
      if (bytesRead === 0) break;
      read += bytesRead;
    }
    return bytes.subarray(0, read);
  } finally {
    await file.close();
  }
}
