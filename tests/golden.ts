/** The golden data that travels with the project. */
import { golden } from './golden-files.js';

export { golden, goldenFiles } from './golden-files.js';

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
