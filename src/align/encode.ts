/** A GPU's encode against the CPU's, value by value. */
import { hex, type Alignment } from '../align.js';
import type { Fp8Format } from '../formats.js';
import { encode } from '../wasm/codec.js';
import type { WebgpuBackend } from '../webgpu/backend.js';
import { encodePatterns } from '../webgpu/encode.js';

/** Values at a time: their codes are 16 MiB. */
const CHUNK = 2 ** 24;

/** A value whose code is another on the GPU. */
export interface CodeMismatch {
  /** Always `encode`. */
  readonly what: 'encode';
  /** All as bits in hex: the f32 value, and its codes. */
  readonly input: string;
  /** The code of the first backend. */
  readonly expected: string;
  /** The code of the second. */
  readonly actual: string;
}

/** How two backends compare on the codec. */
export interface EncodeAlignment extends Alignment<CodeMismatch> {
  /** How many values' codes differ. */
  readonly codes: number;
}

/** Which f32 bit patterns are encoded on both backends. */
export interface AlignEncodeOptions {
  /** The first value's bits, and how many follow, both multiples of 4. Default: all 2³². */
  readonly first?: number;
  /** How many; see `first`. */
  readonly count?: number;
  /** Told the share that is done. */
  readonly progress?: (share: number) => void;
}

function patterns(first: number, count: number): Float32Array {
  const bits = new Uint32Array(count);
  for (let i = 0; i < count; i++) bits[i] = first + i;
  return new Float32Array(bits.buffer);
}

/** Encodes f32 values on a GPU and compares their codes with the CPU's, which are NVIDIA's: by default of all there are. */
export async function alignEncode(backend: WebgpuBackend, format: Fp8Format, { first = 0, count = 2 ** 32, progress = () => {} }: AlignEncodeOptions = {}): Promise<EncodeAlignment> {
  const end = first + count;
  const start = (at: number): Promise<Uint8Array> => encodePatterns(backend, format, at, Math.min(CHUNK, end - at));
  let codes = 0;
  let mismatch: CodeMismatch | undefined;
  let next = start(first);
  for (let at = first; at < end; at += CHUNK) {
    const actual = await next;
    // The GPU goes on while these are compared.
    if (at + CHUNK < end) next = start(at + CHUNK);
    const expected = encode(patterns(at, actual.length), format);
    for (let i = 0; i < actual.length; i++) {
      if (actual[i] === expected[i]) continue;
      codes++;
      mismatch ??= { what: 'encode', input: hex(at + i, 4), expected: hex(expected[i], 1), actual: hex(actual[i], 1) };
    }
    progress((at + actual.length - first) / count);
  }
  if (mismatch === undefined) return { ok: true, summary: 'same codes', codes };
  return { ok: false, summary: `${codes} codes differ, first that of ${mismatch.input}: expected ${mismatch.expected}, got ${mismatch.actual}`, codes, first: mismatch };
}
