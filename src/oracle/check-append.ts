/** What an append of another kernel left, against what it ought to have left. */
import { readAppendCase, runAppendCase, type AppendCase } from '../files/append-case.js';
import { firstDifference } from '../files/compare.js';
import { float32, type Tensor } from '../files/tensor.js';
import { isQuantized, type QuantizedFormat } from '../formats.js';
import { isGiven } from '../policies.js';
import { resolveRecipe, type RecipeName } from '../recipe.js';
import { wasmBackend } from '../wasm/open.js';
import type { Axes } from '../swap-rows.js';
import { bitsAt, checkSubject, type CodeCheck } from './check.js';
import { widenedBits, type Given, type Subject } from './making.js';

/** One side of a cache as it was found. */
export interface SideCheck extends CodeCheck {
  /** Keys or values. */
  readonly side: 'k' | 'v';
}

/** How a dump of an append compares with the right one. */
export interface AppendCheck {
  /** Tells it apart from other checks. */
  readonly kind: 'append';
  /** Whether keys and values are equal. */
  readonly equal: boolean;
  /** Keys and values apart. */
  readonly sides: readonly SideCheck[];
}

const axes = (a: number, b: number): Axes | undefined => (a > 1 && b > 1 ? [a, b] : undefined);

/** The given scales of a side, where it has any. */
function givenOf({ layout, call }: AppendCase, side: 'k' | 'v'): Given | undefined {
  const { granularity } = layout[side];
  if (!isGiven(granularity)) return undefined;
  const scale = call[`${side}Scale`] ?? 1;
  const values = typeof scale === 'number' ? Float32Array.of(scale) : scale;
  return { values, granularity: granularity as Given['granularity'], heads: layout.kvHeads, headStride: 1 };
}

/** Where each row of the input is in the cache. */
function placeOf({ layout: { kvHeads, blockSize }, blocks, call: { slotMapping } }: AppendCase): Int32Array {
  const wrong = slotMapping.find((slot) => slot >= blocks * blockSize);
  if (wrong !== undefined) throw new RangeError(`"slot_mapping" expected slots below ${blocks * blockSize}, got ${wrong}`);
  const seen = new Set<number>();
  const repeated = slotMapping.find((slot) => slot >= 0 && seen.size === seen.add(slot).size);
  if (repeated !== undefined) throw new RangeError(`"slot_mapping" expected each slot once, got ${repeated} twice`);
  return Int32Array.from({ length: slotMapping.length * kvHeads }, (_, row) => {
    const slot = slotMapping[Math.floor(row / kvHeads)];
    return slot < 0 ? -1 : slot * kvHeads + (row % kvHeads);
  });
}

function subjectOf(appendCase: AppendCase, side: 'k' | 'v', format: QuantizedFormat, cache: Tensor): Subject {
  const { layout, start, call, expected } = appendCase;
  const { kvHeads, headDim: dim, blockSize } = layout;
  const [name, other] = side === 'k' ? (['key', 'value'] as const) : (['value', 'key'] as const);
  const given = givenOf(appendCase, side);
  const groupSize = given ? dim : layout[side].groupSize;
  const rows = cache.data.length / dim;
  const startCodes = start?.[`${name}Cache`];
  const scales = given ? undefined : expected.get(`${side}_scale`);
  const others = side === 'v' ? givenOf(appendCase, 'k') : undefined;
  const dtype = call.dtype ?? 'f32';
  return {
    format, dim, given, groupSize, saturate: true, layout: 'NHD',
    recipe: resolveRecipe(call.recipe as RecipeName | undefined),
    input: widenedBits(call[name], dtype),
    others: others?.granularity === given?.granularity ? others : undefined,
    otherRows: side === 'v' && layout.k.groupSize === groupSize ? widenedBits(call[other], dtype) : undefined,
    place: placeOf(appendCase),
    base: {
      codes: startCodes ? new Uint8Array(startCodes.buffer, startCodes.byteOffset, startCodes.byteLength) : new Uint8Array(cache.data.length),
      scales: given ? undefined : (start?.[`${name}Scale`] ?? new Float32Array((rows * dim) / groupSize)),
    },
    found: { codes: cache.data, scales: scales && float32(scales) },
    swaps: { input: axes(call.slotMapping.length, kvHeads), found: axes(blockSize, kvHeads) },
  };
}

/** Which value code i of the cache is for. */
const valueOf = ({ place, dim }: Subject) => (i: number): number | undefined => {
  const row = place!.indexOf(Math.floor(i / dim));
  return row < 0 ? undefined : row * dim + (i % dim);
};

/** Keys or values that are stored as they are: no dialect is about those. */
async function checkStored(appendCase: AppendCase, side: 'k' | 'v', cache: Tensor): Promise<SideCheck> {
  const backend = wasmBackend();
  try {
    const { tensors } = await runAppendCase(backend, appendCase);
    const difference = firstDifference(new Map([['cache', { ...cache, data: tensors.get(`${side}_cache`)!.data }]]), new Map([['cache', cache]]));
    const codes = difference?.count ?? 0;
    return { side, equal: codes === 0, codes: cache.data.length, scales: 0, differing: { codes, scales: 0 }, first: [], ...(codes === 0 ? {} : { explanation: { all: [] } }) };
  } finally {
    backend.dispose();
  }
}

async function checkSide(appendCase: AppendCase, side: 'k' | 'v', cache: Tensor): Promise<SideCheck> {
  const { format } = appendCase.layout[side];
  if (!isQuantized(format)) return checkStored(appendCase, side, cache);
  const subject = subjectOf(appendCase, side, format, cache);
  const scaleShape = appendCase.expected.get(`${side}_scale`)?.shape ?? [];
  const values = side === 'k' ? appendCase.call.key : appendCase.call.value;
  const names = { codes: `${side}_cache`, scales: `${side}_scale`, shape: cache.shape, scaleShape, valueOf: valueOf(subject), bitsOf: (i: number) => bitsAt(values, i) };
  return { side, ...checkSubject(subject, names) };
}

/**
 * Checks what a kernel left of an append: the tensors `expected.k_cache`, `expected.v_cache`, and where scales are computed
 * `expected.k_scale` and `expected.v_scale`, of an `append/1` case file.
 * @param file what to call the file in errors
 * @throws FormatError when it is not such a case; RangeError for one that nothing can be compared with
 */
export async function checkAppendCase(bytes: Uint8Array, file: string): Promise<AppendCheck> {
  const appendCase = readAppendCase(bytes, file);
  const sides: SideCheck[] = [];
  for (const side of ['k', 'v'] as const) {
    const cache = appendCase.expected.get(`${side}_cache`);
    if (cache) sides.push(await checkSide(appendCase, side, cache));
  }
  if (sides.length === 0) throw new RangeError(`"${file}" expected tensors expected.k_cache or expected.v_cache, what the kernel left, got none`);
  return { kind: 'append', equal: sides.every(({ equal }) => equal), sides };
}
