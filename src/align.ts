/**
 * The same call on two backends, compared: caches must hold the same bytes, attention must agree within a bound. What
 * differs is named down to the element, so that whoever writes a kernel knows where to look.
 */
import type { AppendCall, AttendCall, AttendResult, Backend, CodeArray, NhdTensors, Pages } from './backend.js';
import { ATTENTION_BOUND, attentionError, firstBeyond, type AttentionError } from './files/compare.js';
import type { PageLayout } from './layout.js';
import { checkBackend, checkObject } from './options.js';
import { wordsOf } from './tensors.js';

/** A code, or a scale, that is not the same in both caches. */
export interface CacheMismatch {
  /** Whether it is a code or a scale. */
  readonly what: 'code' | 'scale';
  /** Of keys or of values. */
  readonly side: 'k' | 'v';
  /** The page that it is in. */
  readonly page: number;
  /** page · blockSize + place in the page, as a slot mapping says it */
  readonly slot: number;
  /** KV head */
  readonly head: number;
  /** Element of the head; of a scale the first that it is for, and absent where it is for all. */
  readonly dim?: number;
  /** Both as bits in hex. */
  readonly expected: string;
  /** That of the second backend. */
  readonly actual: string;
}

/** A number of out, or of lse, that is further off than the bound. */
export interface ResultMismatch {
  /** Whether it is of out or of lse. */
  readonly what: 'out' | 'lse';
  /** Row of q */
  readonly row: number;
  /** Query head */
  readonly head: number;
  /** Element of the head; absent for lse. */
  readonly dim?: number;
  /** Both as bits of f32 in hex. */
  readonly expected: string;
  /** That of the second backend. */
  readonly actual: string;
}

/** How two backends compare on one call. */
export interface Alignment<Mismatch = object> {
  /** Whether the two agree. */
  readonly ok: boolean;
  /** The outcome in one line. */
  readonly summary: string;
  /** What differs first: of a side, scales before codes, since a wrong scale explains wrong codes; of a result, out before lse. */
  readonly first?: Mismatch;
}

/** How two backends compare on an append: byte by byte. */
export interface AppendAlignment extends Alignment<CacheMismatch> {
  /** How many codes and scales differ, of all that the pages hold. */
  readonly codes: number;
  /** How many scales differ. */
  readonly scales: number;
}

/** How two backends compare on attention: within the bound. */
export interface AttendAlignment extends Alignment<ResultMismatch> {
  /** How far the second is off the first. */
  readonly error: AttentionError;
}

/** Pages of their own, which both backends make for a call. */
interface AlignedPages {
  /** What the pages look like, but for the order of keys: each backend has its own. */
  readonly layout: PageLayout;
  /** How many pages. */
  readonly count: number;
}

/** An append that both backends run, each into pages of its own. */
export interface AlignAppendCall extends Omit<AppendCall, 'pages'>, AlignedPages {
  /** What the pages hold before: zeros when absent. */
  readonly start?: NhdTensors;
}

/** Attention that both backends run, each over pages of its own. */
export interface AlignAttendCall extends Omit<AttendCall, 'pages' | 'out' | 'lse'>, AlignedPages {
  /** What the pages hold. */
  readonly cache: NhdTensors;
}

/** @internal bits in hex */
export const hex = (word: number, bytes: number): string => `0x${word.toString(16).padStart(2 * bytes, '0')}`;

/** One tensor of a cache as words, and where its elements are. */
interface CacheTensor {
  readonly what: 'code' | 'scale';
  readonly side: 'k' | 'v';
  readonly expected: CodeArray;
  readonly actual: CodeArray;
}

function compareTensor({ what, side, expected, actual }: CacheTensor, layout: PageLayout): { count: number; first?: CacheMismatch } {
  const bytes = expected.BYTES_PER_ELEMENT as 1 | 2 | 4;
  const [a, b] = [wordsOf(expected, bytes), wordsOf(actual, bytes)];
  let count = 0;
  let first = -1;
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i]) continue;
    if (first < 0) first = i;
    count++;
  }
  if (first < 0) return { count };
  const { kvHeads, headDim, blockSize } = layout;
  const dimsEach = what === 'scale' ? layout[side].groupSize : 1;
  const row = Math.floor((first * dimsEach) / headDim);
  const slot = Math.floor(row / kvHeads);
  const dim = dimsEach === headDim ? undefined : (first * dimsEach) % headDim;
  return { count, first: { what, side, page: Math.floor(slot / blockSize), slot, head: row % kvHeads, dim, expected: hex(a[first], bytes), actual: hex(b[first], bytes) } };
}

const place = (dim: number | undefined): string => (dim === undefined ? '' : `, dim ${dim}`);

/** Compares two caches of one shape, bit by bit. */
function compareCaches(expected: NhdTensors, actual: NhdTensors, layout: PageLayout): AppendAlignment {
  const counts = { code: 0, scale: 0 };
  let first: CacheMismatch | undefined;
  for (const [side, name] of [['k', 'key'], ['v', 'value']] as const) {
    for (const [what, field] of [['scale', `${name}Scale`], ['code', `${name}Cache`]] as const) {
      const [a, b] = [expected[field], actual[field]];
      if (a === undefined || b === undefined) continue;
      const found = compareTensor({ what, side, expected: a, actual: b }, layout);
      counts[what] += found.count;
      first ??= found.first;
    }
  }
  const { code: codes, scale: scales } = counts;
  if (first === undefined) return { ok: true, summary: 'same bytes', codes, scales };
  const at = `${first.side} ${first.what} at page ${first.page}, slot ${first.slot}, head ${first.head}${place(first.dim)}`;
  return { ok: false, summary: `${codes} codes and ${scales} scales differ, first the ${at}: expected ${first.expected}, got ${first.actual}`, codes, scales, first };
}

function compareResults(expected: AttendResult, actual: AttendResult, headDim: number, queryHeads: number, bound: number): AttendAlignment {
  const error = attentionError(actual, expected, headDim);
  const figures = `out ${error.out.toExponential(1)}, lse ${error.lse.toExponential(1)}`;
  const beyond = firstBeyond(actual, expected, headDim, bound);
  if (beyond === undefined) return { ok: true, summary: `off by ${figures}`, error };
  const { what, index } = beyond;
  const row = what === 'lse' ? index : Math.floor(index / headDim);
  const dim = what === 'lse' ? undefined : index % headDim;
  const [a, b] = [expected[what][index], actual[what][index]];
  const bits = (array: Float32Array): string => hex(wordsOf(array, 4)[index], 4);
  const first = { what, row: Math.floor(row / queryHeads), head: row % queryHeads, dim, expected: bits(expected[what]), actual: bits(actual[what]) };
  const summary = `off by ${figures}, the bound is ${bound}; first ${what} at row ${first.row}, head ${first.head}${place(dim)}: expected ${first.expected} (${a}), got ${first.actual} (${b})`;
  return { ok: false, summary, error, first };
}

/** Runs something on pages of each backend: the reference first. */
async function onBoth<T>(reference: Backend, other: Backend, { layout, count }: AlignedPages, run: (backend: Backend, pages: Pages) => Promise<T>): Promise<[T, T]> {
  checkBackend(reference, 'reference');
  checkBackend(other, 'other');
  const onOne = async (backend: Backend): Promise<T> => {
    const pages = backend.createPages(layout, count);
    try {
      return await run(backend, pages);
    } finally {
      pages.dispose();
    }
  };
  return [await onOne(reference), await onOne(other)];
}

/**
 * Appends the same keys and values on both backends and compares all that the pages then hold, places that were not
 * written to included. NaN counts by its bits.
 * @throws what either backend throws: a call that is refused, or a device that is lost
 */
export async function alignAppend(reference: Backend, other: Backend, call: AlignAppendCall): Promise<AppendAlignment> {
  checkObject(call, 'call');
  const { layout, count, start, ...rest } = call;
  const [expected, actual] = await onBoth(reference, other, { layout, count }, async (backend, pages) => {
    if (start) await pages.import(start);
    await backend.append({ ...rest, pages });
    return pages.export();
  });
  return compareCaches(expected, actual, layout);
}

/**
 * Runs the same attention on both backends. Errors are relative to the largest magnitude of a row; NaN and infinity must
 * stand at the same places, whatever a NaN's bits are.
 * @param bound default 1e-4, which each backend keeps against a float64 reference
 * @throws what either backend throws: a call that is refused, or a device that is lost
 */
export async function alignAttend(reference: Backend, other: Backend, call: AlignAttendCall, bound = ATTENTION_BOUND): Promise<AttendAlignment> {
  checkObject(call, 'call');
  const { layout, count, cache, ...rest } = call;
  const [expected, actual] = await onBoth(reference, other, { layout, count }, async (backend, pages) => {
    await pages.import(cache);
    return backend.attend({ ...rest, pages });
  });
  const queryHeads = expected.lse.length / Math.max(1, call.cuSeqlensQ[call.cuSeqlensQ.length - 1]);
  return compareResults(expected, actual, layout.headDim, queryHeads, bound);
}
