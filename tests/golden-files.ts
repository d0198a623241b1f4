/** The golden data's files, brotli-compressed in tests/golden/. A page has a twin of this file: tests/browser/golden-files.ts. */
import { readdirSync, readFileSync } from 'node:fs';
import { brotliDecompressSync } from 'node:zlib';

const root = new URL('./golden/', import.meta.url);

/** One file's bytes, in a buffer of their own. */
export function golden(path: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(brotliDecompressSync(readFileSync(new URL(`${path}.br`, root))));
}

/** Paths of the files in one folder, for {@link golden}. */
export function goldenFiles(folder: string): string[] {
  return readdirSync(new URL(`${folder}/`, root)).map((file) => `${folder}/${file.replace(/\.br$/, '')}`).sort();
}
