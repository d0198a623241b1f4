/** Comparison of arrays by bits: −0 is not 0, and every NaN is itself. */

type Bits = Uint8Array | Int8Array | Uint16Array | Uint32Array | Int32Array | Float32Array | Float64Array;

const hex = (array: Bits, index: number): string => {
  const size = array.BYTES_PER_ELEMENT;
  const bytes = new Uint8Array(array.buffer, array.byteOffset + index * size, size);
  return `0x${[...bytes].reverse().map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
};

/** @throws Error naming how many elements differ and the first, in hex and as numbers */
export function assertSameBits(actual: Bits, expected: Bits, what = 'arrays'): void {
  if (actual.constructor !== expected.constructor) throw new Error(`${what}: expected ${expected.constructor.name}, got ${actual.constructor.name}`);
  if (actual.length !== expected.length) throw new Error(`${what}: expected ${expected.length} elements, got ${actual.length}`);
  const a = new Uint8Array(actual.buffer, actual.byteOffset, actual.byteLength);
  const e = new Uint8Array(expected.buffer, expected.byteOffset, expected.byteLength);
  let first = -1;
  let count = 0;
  const size = actual.BYTES_PER_ELEMENT;
  for (let i = 0; i < actual.length; i++) {
    for (let b = 0; b < size; b++) {
      if (a[i * size + b] !== e[i * size + b]) {
        if (first < 0) first = i;
        count++;
        break;
      }
    }
  }
  if (count > 0) {
    throw new Error(`${what}: ${count} of ${actual.length} differ, first at ${first}: expected ${hex(expected, first)} (${expected[first]}), got ${hex(actual, first)} (${actual[first]})`);
  }
}
