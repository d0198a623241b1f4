/** Pages ↔ the ecosystem's plain tensors: separate K and V, [blocks, blockSize, kvHeads, headDim]. Bits are moved, never changed. */
import type { CodeArray, NhdTensors } from './backend.js';
import { describe, formats, type Format } from './formats.js';
import { isGiven, type PageLayout, type SideLayout } from './layout.js';

const codeArrays = { e4m3fn: Uint8Array, e5m2: Uint8Array, int8: Int8Array, f16: Uint16Array, f32: Float32Array } as const;

const newCodes = (format: Format, length: number): CodeArray => new codeArrays[format](length);

function checkCodes(codes: CodeArray, format: Format, argument: string): CodeArray {
  const kind = codeArrays[format];
  if (!(codes instanceof kind)) throw new TypeError(`"${argument}" expected a ${kind.name} (${format}), got ${describe(codes)}`);
  return codes;
}

/** Scales of a token and head in the page. */
const groupsOf = ({ headDim }: PageLayout, { groupSize }: SideLayout): number => (groupSize === 0 ? 0 : headDim / groupSize);

function checkScales(scales: Float32Array | undefined, side: SideLayout, length: number, argument: string): void {
  if (isGiven(side.granularity)) {
    if (scales !== undefined) throw new TypeError(`"${argument}" expected to be absent: with granularity ${side.granularity} scales are given to each call`);
    return;
  }
  if (!(scales instanceof Float32Array)) throw new TypeError(`"${argument}" expected a Float32Array, got ${describe(scales)}`);
  if (scales.length !== length) throw new RangeError(`"${argument}" expected length ${length}, got ${scales.length}`);
}

/**
 * How many blocks the tensors hold.
 * @throws TypeError or RangeError when they do not fit the layout or each other
 */
export function checkNhd(layout: PageLayout, tensors: NhdTensors): number {
  const rows = layout.blockSize * layout.kvHeads;
  const { length } = checkCodes(tensors.keyCache, layout.k.format, 'keyCache');
  const blocks = length / (rows * layout.headDim);
  if (!Number.isInteger(blocks)) throw new RangeError(`"keyCache" expected a multiple of ${rows * layout.headDim} elements, got ${length}`);
  if (checkCodes(tensors.valueCache, layout.v.format, 'valueCache').length !== length) {
    throw new RangeError(`"valueCache" expected length ${length}, as keyCache, got ${tensors.valueCache.length}`);
  }
  checkScales(tensors.keyScale, layout.k, blocks * rows * groupsOf(layout, layout.k), 'keyScale');
  checkScales(tensors.valueScale, layout.v, blocks * rows * groupsOf(layout, layout.v), 'valueScale');
  return blocks;
}

/** Elements as words of `bytes` bytes: moved as floats, signalling NaN would change. */
export function wordsOf({ buffer, byteOffset, byteLength }: ArrayBufferView, bytes: 1 | 2 | 4): Uint8Array | Uint16Array | Uint32Array {
  if (bytes === 1) return new Uint8Array(buffer, byteOffset, byteLength);
  return bytes === 2 ? new Uint16Array(buffer, byteOffset, byteLength / 2) : new Uint32Array(buffer, byteOffset, byteLength / 4);
}

/** Calls `move` for every row of a side: its first element in the plain tensor and in the pages, its number, and the index of its first scale in the pages. */
function eachRow(layout: PageLayout, side: SideLayout, blocks: number, move: (plain: number, paged: number, row: number, pagedScale: number) => void): void {
  const { bytes } = formats[side.format];
  let row = 0;
  for (let block = 0; block < blocks; block++) {
    for (let token = 0; token < layout.blockSize; token++) {
      for (let head = 0; head < layout.kvHeads; head++) {
        const page = block * layout.bytes;
        const codes = page + side.codes + head * side.headStride + token * side.tokenStride;
        move(row * layout.headDim, codes / bytes, row, (page + side.scales + head * side.scaleHeadStride) / 4 + token);
        row++;
      }
    }
  }
}

function packSide(layout: PageLayout, side: SideLayout, blocks: number, codes: CodeArray, scales: Float32Array | undefined, pages: Uint8Array): void {
  const { bytes } = formats[side.format];
  const plain = wordsOf(codes, bytes);
  const paged = wordsOf(pages, bytes);
  const plainScales = scales && wordsOf(scales, 4);
  const pagedScales = wordsOf(pages, 4);
  const step = side.dimStride / bytes;
  const groups = groupsOf(layout, side);
  const groupStep = side.scaleGroupStride / 4;
  eachRow(layout, side, blocks, (from, to, row, toScale) => {
    for (let d = 0; d < layout.headDim; d++) paged[to + d * step] = plain[from + d];
    if (plainScales) for (let g = 0; g < groups; g++) pagedScales[toScale + g * groupStep] = plainScales[row * groups + g];
  });
}

function unpackSide(layout: PageLayout, side: SideLayout, blocks: number, pages: Uint8Array): { codes: CodeArray; scales?: Float32Array } {
  const { bytes } = formats[side.format];
  const rows = blocks * layout.blockSize * layout.kvHeads;
  const codes = newCodes(side.format, rows * layout.headDim);
  const groups = groupsOf(layout, side);
  const groupStep = side.scaleGroupStride / 4;
  const scales = groups > 0 ? new Float32Array(rows * groups) : undefined;
  const plain = wordsOf(codes, bytes);
  const paged = wordsOf(pages, bytes);
  const plainScales = scales && wordsOf(scales, 4);
  const pagedScales = wordsOf(pages, 4);
  const step = side.dimStride / bytes;
  eachRow(layout, side, blocks, (to, from, row, fromScale) => {
    for (let d = 0; d < layout.headDim; d++) plain[to + d] = paged[from + d * step];
    if (plainScales) for (let g = 0; g < groups; g++) plainScales[row * groups + g] = pagedScales[fromScale + g * groupStep];
  });
  return { codes, scales };
}

/** Writes checked tensors into the bytes of as many pages. */
export function packNhd(layout: PageLayout, tensors: NhdTensors, blocks: number, pages: Uint8Array): void {
  packSide(layout, layout.k, blocks, tensors.keyCache, tensors.keyScale, pages);
  packSide(layout, layout.v, blocks, tensors.valueCache, tensors.valueScale, pages);
}

/** The plain tensors of the pages whose bytes are given. */
export function unpackNhd(layout: PageLayout, blocks: number, pages: Uint8Array): NhdTensors {
  const k = unpackSide(layout, layout.k, blocks, pages);
  const v = unpackSide(layout, layout.v, blocks, pages);
  return { keyCache: k.codes, valueCache: v.codes, keyScale: k.scales, valueScale: v.scales };
}
