/**
 * Pages ↔ the tensors of other systems: whatever lies in an array by strides of block, token and head. Bits are moved, never
 * changed.
 */
import type { CacheTensors, CodeArray, NhdTensors, ScaleStrides, SideTensor, TensorLayout, TensorStrides } from './backend.js';
import { describe, formats, type Format } from './formats.js';
import { checkInteger, type PageLayout, type SideLayout } from './layout.js';
import { checkObject } from './options.js';
import { groupsOf, rowMajorLayout } from './layouts/row-major.js';
import { isGiven } from './policies.js';

/** What each format's codes come in. */
export const codeArrays = { e4m3fn: Uint8Array, e5m2: Uint8Array, int8: Int8Array, f16: Uint16Array, f32: Float32Array } as const;

function checkCodes(codes: CodeArray, format: Format, argument: string): CodeArray {
  const kind = codeArrays[format];
  if (!(codes instanceof kind)) throw new TypeError(`"${argument}" expected a ${kind.name} (${format}), got ${describe(codes)}`);
  return codes;
}

function checkScales(scales: Float32Array | undefined, side: SideLayout, argument: string): void {
  if (isGiven(side.granularity)) {
    if (scales !== undefined) throw new TypeError(`"${argument}" expected to be absent: with granularity ${side.granularity} scales are given to each call`);
    return;
  }
  if (!(scales instanceof Float32Array)) throw new TypeError(`"${argument}" expected a Float32Array, got ${describe(scales)}`);
}

const checkLength = ({ length }: CodeArray, expected: number, argument: string, why = ''): void => {
  if (length !== expected) throw new RangeError(`"${argument}" expected length ${expected}${why}, got ${length}`);
};

const nhdLayout = (page: PageLayout, blocks: number): TensorLayout => rowMajorLayout(page, { axes: ['block', 'token', 'head'], blocks });

/** The layout of tensors that state none: NHD, of as many blocks as they hold. */
function checkNhd(page: PageLayout, { keyCache, valueCache, keyScale, valueScale }: NhdTensors): TensorLayout {
  const rows = page.blockSize * page.kvHeads;
  const blocks = keyCache.length / (rows * page.headDim);
  if (!Number.isInteger(blocks)) throw new RangeError(`"keyCache" expected a multiple of ${rows * page.headDim} elements, got ${keyCache.length}`);
  checkLength(valueCache, keyCache.length, 'valueCache', ', as keyCache');
  if (keyScale) checkLength(keyScale, blocks * rows * groupsOf(page, page.k), 'keyScale');
  if (valueScale) checkLength(valueScale, blocks * rows * groupsOf(page, page.v), 'valueScale');
  return nhdLayout(page, blocks);
}

/** An array, and where its rows lie. */
interface Part {
  readonly argument: string;
  readonly array: CodeArray;
  /** What the strides are called in errors. */
  readonly field: string;
  readonly strides: TensorStrides | ScaleStrides;
  /** From the first element of a row to behind its last. */
  readonly row: number;
}

/** @throws RangeError for a stride that is none, or an array that ends before its last row does */
function checkPart({ argument, array, field, strides, row }: Part, { blockSize, kvHeads }: PageLayout, tokens: number): void {
  const { offset, block, token, head } = strides;
  for (const [name, stride] of Object.entries({ offset, block, token, head })) checkInteger(stride, `${field}.${name}`, 0);
  if (tokens === 0) return;
  const lastBlock = Math.ceil(tokens / blockSize) - 1;
  const inLast = lastBlock * block + (tokens - lastBlock * blockSize - 1) * token;
  // A full block that comes before a partial one may reach further.
  const inFull = lastBlock > 0 ? (lastBlock - 1) * block + (blockSize - 1) * token : 0;
  const length = offset + Math.max(inLast, inFull) + (kvHeads - 1) * head + row;
  if (array.length < length) throw new RangeError(`"${argument}" expected at least ${length} elements, as "${field}" says, got ${array.length}`);
}

/** @throws TypeError or RangeError naming the tensor of this side, or the part of its layout, that does not fit */
function checkSide(page: PageLayout, name: 'k' | 'v', tensors: CacheTensors, { tokens, [name]: side }: TensorLayout): void {
  const [array, scales] = name === 'k' ? [tensors.keyCache, tensors.keyScale] : [tensors.valueCache, tensors.valueScale];
  const argument = name === 'k' ? 'key' : 'value';
  checkObject(side, `layout.${name}`, '{ codes }');
  checkObject(side.codes, `layout.${name}.codes`, 'offset and strides');
  checkPart({ argument: `${argument}Cache`, array, field: `layout.${name}.codes`, strides: side.codes, row: page.headDim }, page, tokens);
  if (!scales) return;
  const field = `layout.${name}.scales`;
  if (!side.scales) throw new TypeError(`"${field}" expected strides, as the pages hold scales, got undefined`);
  const group = checkInteger(side.scales.group, `${field}.group`, 0);
  checkPart({ argument: `${argument}Scale`, array: scales, field, strides: side.scales, row: (groupsOf(page, page[name]) - 1) * group + 1 }, page, tokens);
}

/** Tensors that were checked, and the pages that they fill. */
export interface CheckedTensors {
  readonly tensors: CacheTensors;
  readonly layout: TensorLayout;
  readonly pages: number;
}

/** @throws TypeError or RangeError naming the tensor, or the part of its layout, that does not fit */
export function checkTensors(page: PageLayout, tensors: CacheTensors, firstPage: number, count: number): CheckedTensors {
  checkObject(tensors, 'tensors', '{ keyCache, valueCache }');
  const { keyCache, valueCache, keyScale, valueScale } = tensors;
  checkCodes(keyCache, page.k.format, 'keyCache');
  checkCodes(valueCache, page.v.format, 'valueCache');
  checkScales(keyScale, page.k, 'keyScale');
  checkScales(valueScale, page.v, 'valueScale');
  const layout = tensors.layout ?? checkNhd(page, tensors);
  if (tensors.layout !== undefined) {
    checkObject(layout, 'layout', '{ tokens, k, v }');
    checkInteger(layout.tokens, 'layout.tokens', 0, count * page.blockSize);
    checkSide(page, 'k', tensors, layout);
    checkSide(page, 'v', tensors, layout);
  }
  const pages = Math.ceil(layout.tokens / page.blockSize);
  if (pages > count) throw new RangeError(`"keyCache" expected at most ${count} pages, as there are, got ${pages}`);
  checkInteger(firstPage, 'firstPage', 0, count - pages);
  return { tensors, layout, pages };
}

/**
 * The same for tensors to be written.
 * @throws RangeError also where keys and values would be written over each other
 */
export function checkTargets(page: PageLayout, tensors: CacheTensors, firstPage: number, count: number): CheckedTensors {
  const checked = checkTensors(page, tensors, firstPage, count);
  const { keyCache, valueCache } = tensors;
  const start = ({ byteOffset, BYTES_PER_ELEMENT }: CodeArray, { codes }: SideTensor): number => byteOffset + codes.offset * BYTES_PER_ELEMENT;
  if (keyCache.buffer === valueCache.buffer && checked.pages > 0 && start(keyCache, checked.layout.k) === start(valueCache, checked.layout.v)) {
    throw new RangeError('"valueCache" expected a place of its own, got that of "keyCache"');
  }
  return checked;
}

/** New NHD tensors for so many pages. */
export function newTensors(page: PageLayout, pages: number): CheckedTensors {
  const rows = pages * page.blockSize * page.kvHeads;
  const codes = ({ format }: SideLayout): CodeArray => new codeArrays[format](rows * page.headDim);
  const scales = (side: SideLayout): Float32Array | undefined => (isGiven(side.granularity) ? undefined : new Float32Array(rows * groupsOf(page, side)));
  const tensors = { keyCache: codes(page.k), valueCache: codes(page.v), keyScale: scales(page.k), valueScale: scales(page.v) };
  return { tensors, layout: nhdLayout(page, pages), pages };
}

type Words = Uint8Array | Uint16Array | Uint32Array;

/** Elements as words of `bytes` bytes: moved as floats, signalling NaN would change. */
export function wordsOf({ buffer, byteOffset, byteLength }: ArrayBufferView, bytes: 1 | 2 | 4): Words {
  if (bytes === 1) return new Uint8Array(buffer, byteOffset, byteLength);
  return bytes === 2 ? new Uint16Array(buffer, byteOffset, byteLength / 2) : new Uint32Array(buffer, byteOffset, Math.floor(byteLength / 4));
}

/** Rows in an array of words: where they lie, and the step from one of their words to the next. */
interface Rows extends TensorStrides {
  readonly words: Words;
  readonly step: number;
}

/** Copies `length` words of every row. */
function copyRows(from: Rows, to: Rows, { kvHeads, blockSize }: PageLayout, tokens: number, length: number): void {
  const [source, target, fromStep, toStep] = [from.words, to.words, from.step, to.step];
  for (let block = 0; block * blockSize < tokens; block++) {
    const end = Math.min(blockSize, tokens - block * blockSize);
    for (let head = 0; head < kvHeads; head++) {
      let [f, t] = [from.offset + block * from.block + head * from.head, to.offset + block * to.block + head * to.head];
      for (let token = 0; token < end; token++) {
        for (let i = 0; i < length; i++) target[t + i * toStep] = source[f + i * fromStep];
        f += from.token;
        t += to.token;
      }
    }
  }
}

/** Strides in elements of `bytes` as those in words of `word` bytes. */
const inWords = ({ offset, block, token, head }: TensorStrides, bytes: number, word: number): TensorStrides => ({
  offset: (offset * bytes) / word, block: (block * bytes) / word, token: (token * bytes) / word, head: (head * bytes) / word,
});

/** Copies rows from the first to the second, or the other way. */
type Direction = (tensor: Rows, paged: Rows, page: PageLayout, tokens: number, length: number) => void;
const toPages: Direction = (tensor, paged, page, tokens, length) => copyRows(tensor, paged, page, tokens, length);
const fromPages: Direction = (tensor, paged, page, tokens, length) => copyRows(paged, tensor, page, tokens, length);

function moveCodes(page: PageLayout, side: SideLayout, strides: TensorStrides, tokens: number, codes: CodeArray, pages: Uint8Array, move: Direction): void {
  const { bytes } = formats[side.format];
  const inBytes = inWords(strides, bytes, 1);
  // Rows that are one piece on both sides go by 4 bytes where they begin at such.
  const whole = side.dimStride === bytes && [codes.byteOffset, ...Object.values(inBytes)].every((at) => at % 4 === 0);
  const word = whole ? 4 : bytes;
  const paged = { offset: side.codes, block: page.bytes, token: side.tokenStride, head: side.headStride };
  const step = whole ? 1 : side.dimStride / bytes;
  move({ words: wordsOf(codes, word), step: 1, ...inWords(inBytes, 1, word) }, { words: wordsOf(pages, word), step, ...inWords(paged, 1, word) }, page, tokens, (page.headDim * bytes) / word);
}

function moveScales(page: PageLayout, side: SideLayout, strides: ScaleStrides, tokens: number, scales: Float32Array, pages: Uint8Array, move: Direction): void {
  const paged = inWords({ offset: side.scales, block: page.bytes, token: 4, head: side.scaleHeadStride }, 1, 4);
  move({ words: wordsOf(scales, 4), step: strides.group, ...strides }, { words: wordsOf(pages, 4), step: side.scaleGroupStride / 4, ...paged }, page, tokens, groupsOf(page, side));
}

function move(page: PageLayout, { tensors, layout }: CheckedTensors, pages: Uint8Array, direction: Direction): void {
  const { k, v, tokens } = layout;
  moveCodes(page, page.k, k.codes, tokens, tensors.keyCache, pages, direction);
  moveCodes(page, page.v, v.codes, tokens, tensors.valueCache, pages, direction);
  if (tensors.keyScale) moveScales(page, page.k, k.scales!, tokens, tensors.keyScale, pages, direction);
  if (tensors.valueScale) moveScales(page, page.v, v.scales!, tokens, tensors.valueScale, pages, direction);
}

/** Writes tensors into the bytes of their pages: where the last is not full, the rest of it becomes 0. */
export function packPages(page: PageLayout, checked: CheckedTensors, pages: Uint8Array): void {
  if (checked.layout.tokens < checked.pages * page.blockSize) pages.fill(0, (checked.pages - 1) * page.bytes);
  move(page, checked, pages, toPages);
}

/** Writes the bytes of pages into their tensors. */
export function unpackPages(page: PageLayout, checked: CheckedTensors, pages: Uint8Array): void {
  move(page, checked, pages, fromPages);
}
