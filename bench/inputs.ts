/** What benches are fed with: seeded, so that every run is over the same numbers. */
import { random } from '../tests/random.js';

export const SEED = 20_26;

/** Normal numbers, again and again a million of them: drawing 33 million would take longer than measuring. No row comes twice. */
export function normals(seed: number, length: number): Float32Array {
  const source = random(seed).normals(Math.min(length, 1_000_003));
  const x = new Float32Array(length);
  for (let at = 0; at < length; at += source.length) x.set(source.subarray(0, length - at), at);
  return x;
}
