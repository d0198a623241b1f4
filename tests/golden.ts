/** The golden data that travels with the project, brotli-compressed in tests/golden/. */
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

/** NVIDIA's map of all f32 bit patterns: code `codes[i]` from pattern `starts[i]` on. */
export function nvidiaMap(format: string, mode: string): { starts: number[]; codeOf: (pattern: number) => number } {
  const runs: [number, number][] = JSON.parse(new TextDecoder().decode(golden(`codec/nvidia.${format}.${mode}.json`))).start_code;
  const starts = runs.map(([start]) => start);
  const codeOf = (pattern: number): number => {
    let low = 0;
    let high = runs.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (starts[middle] <= pattern) low = middle;
      else high = middle;
    }
    return runs[low][1];
  };
  return { starts, codeOf };
}
