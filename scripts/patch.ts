/** The way to a patch: src/wasm/patch.ts is the way back. */

/** Bytes that are alike for less are not worth a piece. */
const LEAST = 12;

function leb128(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 0x80; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
}

/** How many bytes are alike from here on. */
function alike(a: Uint8Array, from: number, b: Uint8Array, at: number): number {
  let length = 0;
  while (from + length < a.length && at + length < b.length && a[from + length] === b[at + length]) length++;
  return length;
}

export function makePatch(from: Uint8Array, to: Uint8Array): Uint8Array {
  const keyAt = (bytes: Uint8Array, at: number): string => String.fromCharCode(...bytes.subarray(at, at + LEAST));
  const places = new Map<string, number[]>();
  for (let at = 0; at + LEAST <= from.length; at++) {
    const key = keyAt(from, at);
    places.set(key, [...(places.get(key) ?? []), at]);
  }
  const patch: number[] = [];
  let [source, copied] = [0, 0];
  let moved = 0;
  let added: number[] = [];
  const end = (): void => {
    patch.push(...leb128((moved << 1) ^ (moved >> 31)), ...leb128(copied), ...leb128(added.length), ...added);
    source += copied;
    [copied, moved, added] = [0, 0, []];
  };
  for (let at = 0; at < to.length; ) {
    // What is nearest to the end of the last copy is most likely what follows it.
    const here = source + copied + added.length;
    const nearest = (places.get(keyAt(to, at)) ?? []).reduce((best, place) => (Math.abs(place - here) < Math.abs(best - here) ? place : best), Infinity);
    if (nearest === Infinity) {
      added.push(to[at++]);
      continue;
    }
    end();
    moved = nearest - source;
    source = nearest;
    copied = alike(from, nearest, to, at);
    at += copied;
  }
  end();
  return Uint8Array.from(patch);
}
