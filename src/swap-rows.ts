/** Two dimensions that another layout has the other way round: [pages or sequences…, a, b, dim]. */
export type Axes = readonly [a: number, b: number];

/** Rows of (…, a, b, width) as (…, b, a, width). */
export function swapRows<T extends Uint8Array | Int8Array | Uint16Array | Uint32Array | Float32Array>(rows: T, [a, b]: Axes, width: number): T {
  const swapped = rows.slice() as T;
  const each = a * b * width;
  for (let start = 0; start + each <= rows.length; start += each) {
    for (let i = 0; i < a; i++) {
      for (let j = 0; j < b; j++) {
        const from = start + (i * b + j) * width;
        swapped.set(rows.subarray(from, from + width) as T & Uint8Array, start + (j * a + i) * width);
      }
    }
  }
  return swapped;
}
