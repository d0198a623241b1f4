/** A cache of random tokens with shuffled pages, and all its unused slots poisoned. */
import { decode, pageLayout, type AttendCall, type Backend, type CodeArray, type GivenScale, type NhdTensors, type PageLayout, type PageOrder, type Pages, type SideLayout, type SideOptions } from '../src/index.js';
import { definitions, valueOf } from './reference/codec.js';
import type { Random } from './random.js';

export interface FixtureOptions {
  readonly kvHeads: number;
  readonly headDim: number;
  readonly blockSize: number;
  /** Tokens of each sequence. */
  readonly kvLens: readonly number[];
  readonly k?: SideOptions;
  readonly v?: SideOptions;
  readonly order?: PageOrder;
  /** Given scales, for append and attend. */
  readonly kScale?: GivenScale;
  readonly vScale?: GivenScale;
  /** More pages than needed, so that shuffling has room. Default 3. */
  readonly sparePages?: number;
}

export interface Fixture {
  readonly layout: PageLayout;
  readonly pages: Pages;
  readonly blockTable: Int32Array;
  readonly seqUsedK: Int32Array;
  readonly kScale: GivenScale | undefined;
  readonly vScale: GivenScale | undefined;
  /** Per sequence [tokens, kvHeads, headDim], as they were appended. */
  readonly keys: readonly Float32Array[];
  readonly values: readonly Float32Array[];
  /** All pages as plain tensors. */
  readonly stored: NhdTensors;
  /** What is in the cache for token j of a sequence, as numbers: times its scale in the page, if there is one, but not the given one. */
  codeAt(side: 'k' | 'v', sequence: number, j: number, head: number, d: number): number;
  /** The same, given scale included. */
  valueAt(side: 'k' | 'v', sequence: number, j: number, head: number, d: number): number;
}

/** NaN in every code and scale: what an unused slot may hold. */
export function poison(layout: PageLayout, blocks: number): NhdTensors {
  const rows = blocks * layout.blockSize * layout.kvHeads;
  const codes = (format: string): CodeArray => {
    const length = rows * layout.headDim;
    if (format === 'f32') return new Float32Array(length).fill(NaN);
    if (format === 'int8') return new Int8Array(length).fill(-128);
    return format === 'f16' ? new Uint16Array(length).fill(0x7e00) : new Uint8Array(length).fill(0x7f);
  };
  const scales = ({ groupSize }: SideLayout) => (groupSize === 0 ? undefined : new Float32Array((rows * layout.headDim) / groupSize).fill(NaN));
  const { k, v } = layout;
  return { keyCache: codes(k.format), valueCache: codes(v.format), keyScale: scales(k), valueScale: scales(v) };
}

/** Pages 0 … count − 1 in random order. */
export function shuffled(count: number, random: Random): number[] {
  const pages = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = random.integer(i + 1);
    [pages[i], pages[j]] = [pages[j], pages[i]];
  }
  return pages;
}

function numbersOf(format: string, codes: CodeArray): Float32Array {
  if (codes instanceof Float32Array) return codes;
  if (codes instanceof Uint16Array) return Float32Array.from(codes, (half) => valueOf(half, definitions.f16));
  return codes instanceof Int8Array ? Float32Array.from(codes) : decode(codes, format as 'e4m3fn');
}

/** Appends random tokens through the backend; synchronous backends only need not wait. */
export async function fixture(backend: Backend, random: Random, options: FixtureOptions): Promise<Fixture> {
  const { kvHeads, headDim, blockSize, kvLens, kScale, vScale } = options;
  const layout = pageLayout({ kvHeads, headDim, blockSize, k: options.k, v: options.v, order: options.order });
  const blocksOf = kvLens.map((length) => Math.ceil(length / blockSize));
  const count = blocksOf.reduce((sum, blocks) => sum + blocks, 0) + (options.sparePages ?? 3);
  const pages = backend.createPages(layout, count);
  await pages.import(poison(layout, count));
  const order = shuffled(count, random);
  const maxBlocks = Math.max(1, ...blocksOf);
  const blockTable = new Int32Array(kvLens.length * maxBlocks).fill(-1);
  const keys = kvLens.map((length) => random.normals(length * kvHeads * headDim));
  const values = kvLens.map((length) => random.normals(length * kvHeads * headDim));
  for (const [s, length] of kvLens.entries()) {
    for (let block = 0; block < blocksOf[s]; block++) blockTable[s * maxBlocks + block] = order.pop()!;
    const slotMapping = Int32Array.from({ length }, (_, j) => blockTable[s * maxBlocks + Math.floor(j / blockSize)] * blockSize + (j % blockSize));
    await backend.append({ pages, key: keys[s], value: values[s], slotMapping, kScale, vScale });
  }
  const stored = await pages.export();
  const sides = {
    k: { codes: numbersOf(layout.k.format, stored.keyCache), scales: stored.keyScale, given: kScale },
    v: { codes: numbersOf(layout.v.format, stored.valueCache), scales: stored.valueScale, given: vScale },
  };
  const codeAt: Fixture['codeAt'] = (side, s, j, head, d) => {
    const page = blockTable[s * maxBlocks + Math.floor(j / blockSize)];
    const element = ((page * blockSize + (j % blockSize)) * kvHeads + head) * headDim + d;
    const { codes, scales } = sides[side];
    return codes[element] * (scales?.[Math.floor(element / layout[side].groupSize)] ?? 1);
  };
  const valueAt: Fixture['valueAt'] = (side, s, j, head, d) => {
    const { given = 1 } = sides[side];
    const scale = typeof given === 'number' ? given : given[given.length === kvHeads ? head : given.length === 1 ? 0 : head * headDim + d];
    return codeAt(side, s, j, head, d) * scale;
  };
  return { layout, pages, blockTable, seqUsedK: Int32Array.from(kvLens), kScale, vScale, keys, values, stored, codeAt, valueAt };
}

/** The call that attends from `qLens` rows per sequence. */
export function callOf({ pages, blockTable, seqUsedK, kScale, vScale }: Fixture, qLens: readonly number[], q: Float32Array): AttendCall {
  const cuSeqlensQ = new Int32Array(qLens.length + 1);
  for (const [s, rows] of qLens.entries()) cuSeqlensQ[s + 1] = cuSeqlensQ[s] + rows;
  return { pages, q, blockTable, cuSeqlensQ, seqUsedK, kScale, vScale };
}
