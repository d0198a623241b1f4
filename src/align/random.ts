/** Seeded random numbers: whatever fails with them fails again. */

export interface Random {
  /** The next 32 random bits. */
  bits(): number;
  /** Uniform in [0, 1). */
  uniform(): number;
  /** An integer in [0, below). */
  integer(below: number): number;
  /** Standard normal. */
  normal(): number;
  normals(length: number, scale?: number): Float32Array;
}

/** sfc32 seeded with one number. */
export function random(seed: number): Random {
  let a = 0x9e3779b9;
  let b = 0x243f6a88;
  let c = seed | 0;
  let counter = 1;
  const bits = (): number => {
    const t = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    return t >>> 0;
  };
  for (let i = 0; i < 15; i++) bits();
  const uniform = (): number => bits() / 2 ** 32;
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return {
    bits,
    uniform,
    integer: (below) => Math.floor(uniform() * below),
    normal,
    normals: (length, scale = 1) => Float32Array.from({ length }, () => normal() * scale),
  };
}
