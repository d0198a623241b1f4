/** The attention of another kernel, against what it ought to have been. */
import type { AttendResult, CodeArray } from '../backend.js';
import { readAttendCase, runAttendCase, type AttendCase } from '../files/attend-case.js';
import { ATTENTION_BOUND, attentionError, type AttentionError } from '../files/compare.js';
import { formats, type Fp8Format } from '../formats.js';
import { pageLayout, type PageLayout, type SideOptions } from '../layout.js';
import { isGiven } from '../policies.js';
import type { GivenScale } from '../scale.js';
import type { WasmBackend } from '../wasm/backend.js';
import { swapRows } from '../swap-rows.js';
import { wasmBackend } from '../wasm/open.js';
import { codeDialects, type Dialect } from './dialects.js';
import { fnuzValue, roundToHalf } from './encoders.js';

/** How a dump of attention compares with the right one. */
export interface AttendCheck {
  /** Tells it apart from other checks. */
  readonly kind: 'attend';
  /** All within the bounds. */
  readonly equal: boolean;
  /** How far it is off, at most. */
  readonly error: AttentionError;
  /** How far it may be: 1e-4, but `out` of f16 or bf16 5e-3. */
  readonly bound: AttentionError;
  /** Rows, one for each query row and head. */
  readonly rows: number;
  /** Those beyond the bound; the first of them as [row, query head]. */
  readonly differing: number;
  /** As [row, query head]. */
  readonly first?: readonly [row: number, head: number];
  /** Absent where nothing differs: dialects with which all rows are within the bound, or else the one with most. */
  readonly explanation?: { readonly all: readonly Dialect[]; readonly most?: Dialect & { readonly explained: number } };
}

type Side = 'k' | 'v';
const cacheOf = { k: 'keyCache', v: 'valueCache' } as const;
const scaleOf = { k: 'keyScale', v: 'valueScale' } as const;

const optionsOf = (layout: PageLayout, side: Side): SideOptions => {
  const { format, granularity, groupSize } = layout[side];
  return { dtype: format, granularity, groupSize: granularity === 'group' ? groupSize : undefined };
};

/** A case whose values, and scales where they are in the pages, have the scales of its keys. */
function withKeyScales(attendCase: AttendCase): AttendCase[] {
  const { layout: { k, v }, cache, call } = attendCase;
  if (k.granularity !== v.granularity || k.groupSize !== v.groupSize) return [];
  return [{ ...attendCase, cache: { ...cache, valueScale: cache.keyScale }, call: { ...call, vScale: call.kScale } }];
}

/** Codes and scales taken from where the other layout has them, or some of them. */
function swapped(attendCase: AttendCase): AttendCase[] {
  const { layout: { blockSize, kvHeads, headDim }, cache } = attendCase;
  if (blockSize === 1 || kvHeads === 1) return [];
  const swap = <T extends CodeArray | undefined>(rows: T): T => rows && (swapRows(rows, [kvHeads, blockSize], rows.length / (cache.keyCache.length / headDim)) as T);
  const { keyCache, valueCache, keyScale, valueScale } = cache;
  const keys = { keyCache: swap(keyCache), keyScale: swap(keyScale) };
  const values = { valueCache: swap(valueCache), valueScale: swap(valueScale) };
  const both = { ...keys, ...values };
  const codes = keyScale || valueScale ? [{ ...both, keyScale, valueScale }, { ...cache, keyScale: both.keyScale, valueScale: both.valueScale }] : [];
  return [both, ...codes, { ...cache, ...keys }, { ...cache, ...values }].map((each) => ({ ...attendCase, cache: each }));
}

const roundedScale = (scale: GivenScale | undefined): GivenScale | undefined => (typeof scale === 'number' ? roundToHalf(scale) : scale?.map(roundToHalf));

function withHalfScales(attendCase: AttendCase): AttendCase[] {
  const { cache, call } = attendCase;
  const [kScale, vScale] = [roundedScale(call.kScale), roundedScale(call.vScale)];
  // A given scale that f16 has no number for would be refused.
  const all = [kScale ?? 1, vScale ?? 1].flatMap((scale) => (typeof scale === 'number' ? [scale] : [...scale]));
  if (!all.every((scale) => scale > 0 && scale < Infinity)) return [];
  return [{ ...attendCase, cache: { ...cache, keyScale: cache.keyScale?.map(roundToHalf), valueScale: cache.valueScale?.map(roundToHalf) }, call: { ...call, kScale, vScale } }];
}

/** A side's FP8 codes read as AMD's: a cache of f32, as no format of ours has their values. */
function asFnuz(attendCase: AttendCase, side: Side): AttendCase {
  const { layout, cache, call } = attendCase;
  const { kvHeads, headDim, blockSize } = layout;
  const { format, granularity, groupSize } = layout[side];
  const scale = isGiven(granularity) ? (call[`${side}Scale`] ?? 1) : cache[scaleOf[side]]!;
  const scaleAt = (i: number): number => {
    if (typeof scale === 'number') return scale;
    if (!isGiven(granularity)) return scale[Math.floor(i / groupSize)];
    const head = Math.floor(i / headDim) % kvHeads;
    return scale[scale.length === 1 ? 0 : granularity === 'head' ? head : head * headDim + (i % headDim)];
  };
  const values = Float32Array.from(cache[cacheOf[side]] as Uint8Array, (code, i) => fnuzValue(code, format as Fp8Format) * scaleAt(i));
  const sides = { k: optionsOf(layout, 'k'), v: optionsOf(layout, 'v'), [side]: { dtype: 'f32' } };
  return {
    ...attendCase,
    layout: pageLayout({ kvHeads, headDim, blockSize, ...sides }),
    cache: { ...cache, [cacheOf[side]]: values, [scaleOf[side]]: undefined },
    call: { ...call, [`${side}Scale`]: undefined },
  };
}

function asFnuzSides(attendCase: AttendCase): AttendCase[] {
  const sides = (['k', 'v'] as const).filter((side) => formats[attendCase.layout[side].format].id < formats.int8.id);
  const each = sides.map((side) => asFnuz(attendCase, side));
  return sides.length === 2 ? [asFnuz(each[0], 'v'), ...each] : each;
}

/** By the names of the dialects of codes. */
const ways: { readonly [name: string]: (attendCase: AttendCase) => AttendCase[] } = {
  FNUZ: asFnuzSides,
  'f16-rounded scale': withHalfScales,
  'HND for NHD': swapped,
  'K scale used for V': withKeyScales,
};

/** Whether each row, of one query row and head, is within the bound of what was found. */
function rowsWithin({ out, lse }: AttendResult, { expected, qShape: [, , dim] }: AttendCase): boolean[] {
  return Array.from(lse, (_, row) => {
    const part = (array: Float32Array | undefined, width: number): Float32Array | undefined => array?.subarray(row * width, (row + 1) * width);
    const error = attentionError({ out: part(expected.out, dim) ?? part(out, dim)!, lse: part(expected.lse, 1) ?? part(lse, 1)! }, { out: part(out, dim), lse: part(lse, 1) }, dim);
    return error.out <= expected.outBound && error.lse <= ATTENTION_BOUND;
  });
}

const count = (flags: readonly boolean[]): number => flags.filter(Boolean).length;

async function explainAttention(backend: WasmBackend, attendCase: AttendCase, within: readonly boolean[]): Promise<AttendCheck['explanation']> {
  const all: Dialect[] = [];
  let most: (Dialect & { explained: number }) | undefined;
  for (const { name, summary, source } of codeDialects) {
    for (const way of ways[name]?.(attendCase) ?? []) {
      const rows = rowsWithin(await runAttendCase(backend, way), attendCase);
      const explained = count(rows) - count(within);
      if (count(rows) === rows.length && all.at(-1)?.name !== name) all.push({ name, summary, source });
      else if (explained > (most?.explained ?? 0)) most = { name, summary, source, explained };
    }
  }
  return all.length > 0 ? { all } : { all, most };
}

/**
 * Checks the attention of a kernel: the tensors `expected.out` and `expected.lse` of an `attend/1` case file, each row within
 * 1e-4 of its largest magnitude, or 5e-3 where `expected.out` is F16 or BF16.
 * @param file what to call the file in errors
 * @throws FormatError when it is not such a case; RangeError for one that nothing can be compared with
 */
export async function checkAttendCase(bytes: Uint8Array, file: string): Promise<AttendCheck> {
  const attendCase = readAttendCase(bytes, file);
  const { expected: found, qShape: [, heads, dim] } = attendCase;
  if (!found.out && !found.lse) throw new RangeError(`"${file}" expected tensors expected.out or expected.lse, what the kernel gave, got none`);
  const backend = wasmBackend();
  try {
    const right = await runAttendCase(backend, attendCase);
    const within = rowsWithin(right, attendCase);
    const error = attentionError({ out: found.out ?? right.out, lse: found.lse ?? right.lse }, right, dim);
    const differing = within.length - count(within);
    const at = within.indexOf(false);
    return {
      kind: 'attend', equal: differing === 0, error, bound: { out: found.outBound, lse: ATTENTION_BOUND }, rows: within.length, differing,
      first: at < 0 ? undefined : [Math.floor(at / heads), at % heads],
      explanation: differing === 0 ? undefined : await explainAttention(backend, attendCase, within),
    };
  } finally {
    backend.dispose();
  }
}
