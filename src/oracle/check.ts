/** What a check says: equal, or what differs first, and what explains it. */
import { hex } from '../align.js';
import { bytesOf, type QuantizedFormat } from '../formats.js';
import { decode } from '../wasm/codec.js';
import { differences, explain, type Explanation } from './explain.js';
import { givenAt, make, numberOf, rightMaking, type Subject, type Tensors } from './making.js';

/** A code, or a scale, that is not what it ought to be. */
export interface CodeMismatch {
  /** Name of the tensor that it is in. */
  readonly tensor: string;
  /** Its coordinates in that tensor. */
  readonly at: readonly number[];
  /** The bits of the value that it is for, in hex, and that value; absent for scales, and where no value was written. */
  readonly input?: string;
  /** That value. */
  readonly inputValue?: number;
  /** The scale that a code ought to have; absent for scales, and where values are encoded as they are. */
  readonly scale?: number;
  /** Both as bits in hex. */
  readonly expected: string;
  /** What the kernel made. */
  readonly found: string;
  /** What they stand for: of codes without their scale. */
  readonly expectedValue: number;
  /** What that stands for. */
  readonly foundValue: number;
}

/** How codes and scales compare with the right ones. */
export interface CodeCheck {
  /** Whether no code and no scale differs. */
  readonly equal: boolean;
  /** How many codes and scales were compared. */
  readonly codes: number;
  /** How many scales were compared. */
  readonly scales: number;
  /** How many of them differ. */
  readonly differing: { readonly codes: number; readonly scales: number };
  /** The first that differ, scales before codes, since a wrong scale explains wrong codes. */
  readonly first: readonly CodeMismatch[];
  /** Absent where nothing differs. */
  readonly explanation?: Explanation;
}

/** How many mismatches are told of, of scales and of codes. */
const FIRST = 5;

/** How the tensors of a subject are called, and their shapes. */
export interface Names {
  readonly codes: string;
  readonly scales: string;
  readonly shape: readonly number[];
  readonly scaleShape: readonly number[];
  /** Which value code i is for; undefined where none was written. */
  readonly valueOf: (i: number) => number | undefined;
  /** Bits of that value, in hex. */
  readonly bitsOf: (value: number) => string;
}

/** Row-major coordinates of element i. */
function coordinates(i: number, shape: readonly number[]): number[] {
  const at: number[] = [];
  for (let axis = shape.length - 1, rest = i; axis >= 0; axis--) {
    at.unshift(rest % shape[axis]);
    rest = Math.floor(rest / shape[axis]);
  }
  return at;
}

function decoded(code: number, format: QuantizedFormat): number {
  return format === 'int8' ? (code << 24) >> 24 : decode(Uint8Array.of(code), format)[0];
}

const wordOf = (x: number): string => hex(new Uint32Array(Float32Array.of(x).buffer)[0], 4);

/** The scale that code i ought to have. */
function scaleAt({ given, dim, groupSize }: Subject, expected: Tensors, i: number): number | undefined {
  if (given) return given.unscaled ? undefined : given.values[givenAt(given, dim, i)];
  return expected.scales![Math.floor(i / groupSize)];
}

/** Compares what was found with what the library makes. */
export function checkSubject(subject: Subject, names: Names): CodeCheck {
  const expected = make(subject, rightMaking(subject));
  const { found, format } = subject;
  const wrong = differences(expected, found);
  const scales = wrong.scales.slice(0, FIRST).map((i): CodeMismatch => {
    const [a, b] = [expected.scales![i], found.scales![i]];
    return { tensor: names.scales, at: coordinates(i, names.scaleShape), expected: wordOf(a), found: wordOf(b), expectedValue: a, foundValue: b };
  });
  const codes = wrong.codes.slice(0, FIRST).map((i): CodeMismatch => {
    const [a, b] = [expected.codes[i], found.codes[i]];
    const value = names.valueOf(i);
    const input = value === undefined ? {} : { input: names.bitsOf(value), inputValue: numberOf(subject.input[value]) };
    const scale = value === undefined ? undefined : scaleAt(subject, expected, i);
    return {
      tensor: names.codes, at: coordinates(i, names.shape), ...input, ...(scale === undefined ? {} : { scale }),
      expected: hex(a, 1), found: hex(b, 1), expectedValue: decoded(a, format), foundValue: decoded(b, format),
    };
  });
  const equal = wrong.codes.length + wrong.scales.length === 0;
  return {
    equal,
    codes: found.codes.length,
    scales: expected.scales ? (found.scales?.length ?? 0) : 0,
    differing: { codes: wrong.codes.length, scales: wrong.scales.length },
    first: [...scales, ...codes],
    ...(equal ? {} : { explanation: explain(subject, wrong) }),
  };
}

/** Bits of element i, in hex. */
export function bitsAt(values: Float32Array | Uint16Array, i: number): string {
  const bytes = values.BYTES_PER_ELEMENT;
  const view = bytesOf(values);
  let bits = '';
  for (let byte = bytes - 1; byte >= 0; byte--) bits += view[i * bytes + byte].toString(16).padStart(2, '0');
  return `0x${bits}`;
}
