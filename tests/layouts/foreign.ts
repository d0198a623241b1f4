/** Caches of other systems, written by plain loops over their shapes: what layouts are compared with. */
import { ferrumLayout, flashinferLayout, milaLayout, vllmLayout, type CacheTensors, type CodeArray, type NhdTensors, type PageLayout, type TensorLayout } from '../../src/index.js';
import { bytesOf } from '../../src/formats.js';
import { poison } from '../fixture.js';
import type { Random } from '../random.js';

/** Where the row of a token and head is. */
interface Place {
  readonly side: 0 | 1;
  readonly block: number;
  /** In its block. */
  readonly token: number;
  /** In its sequence. */
  readonly position: number;
  readonly head: number;
}

/** A system's tensors: their shapes without the dims of a row, and the index of a row in them. */
export interface Foreign {
  readonly name: string;
  /** Tokens, where they end within the last of the blocks. */
  readonly tokens?: (page: PageLayout, blocks: number) => number;
  readonly layout: (page: PageLayout, blocks: number) => TensorLayout;
  /** Whether keys and values are in one array. */
  readonly together: boolean;
  readonly inline?: boolean;
  readonly shape: (page: PageLayout, blocks: number) => readonly number[];
  readonly index: (place: Place) => readonly number[];
  /** The same of the scales; default: as the codes. */
  readonly scales?: { readonly together: boolean; readonly shape: Foreign['shape']; readonly index: Foreign['index'] };
}

const perToken: Foreign['scales'] = { together: false, shape: (p, n) => [n, p.blockSize, p.kvHeads], index: ({ block, token, head }) => [block, token, head] };
const [layers, layer] = [3, 1];
const some = (page: PageLayout, blocks: number): number => blocks * page.blockSize - Math.floor(page.blockSize / 2);

export const foreigns: readonly Foreign[] = [
  {
    name: 'vLLM, separate, NHD', together: false, layout: (p, blocks) => vllmLayout(p, { blocks }),
    shape: (p, n) => [n, p.blockSize, p.kvHeads], index: ({ block, token, head }) => [block, token, head],
  },
  {
    name: 'vLLM, separate, HND', together: false, layout: (p, blocks) => vllmLayout(p, { blocks, order: 'HND' }), scales: perToken,
    shape: (p, n) => [n, p.kvHeads, p.blockSize], index: ({ block, token, head }) => [block, head, token],
  },
  {
    name: 'vLLM, stacked, NHD', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'stacked' }), scales: perToken,
    shape: (p, n) => [2, n, p.blockSize, p.kvHeads], index: ({ side, block, token, head }) => [side, block, token, head],
  },
  {
    name: 'vLLM, stacked, HND', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'stacked', order: 'HND' }), scales: perToken,
    shape: (p, n) => [2, n, p.kvHeads, p.blockSize], index: ({ side, block, token, head }) => [side, block, head, token],
  },
  {
    name: 'vLLM, interleaved as [blocks, 2·block, heads, dim]', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'interleaved' }), scales: perToken,
    shape: (p, n) => [n, 2 * p.blockSize, p.kvHeads], index: ({ side, block, token, head }) => [block, side === 0 ? token : -1 - token, head],
  },
  {
    name: 'vLLM, interleaved, HND', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'interleaved', order: 'HND' }), scales: perToken,
    shape: (p, n) => [n, 2, p.kvHeads, p.blockSize], index: ({ side, block, token, head }) => [block, side, head, token],
  },
  {
    name: 'vLLM, packed, NHD', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'packed' }), scales: perToken,
    shape: (p, n) => [n, p.blockSize, p.kvHeads, 2], index: ({ side, block, token, head }) => [block, token, head, side],
  },
  {
    name: 'vLLM, packed, HND, inline scales', together: true, inline: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'packed', order: 'HND', inlineScales: true }),
    shape: (p, n) => [n, p.kvHeads, p.blockSize, 2], index: ({ side, block, token, head }) => [block, head, token, side],
  },
  {
    name: 'vLLM, interleaved, inline scales', together: true, inline: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'interleaved', inlineScales: true }),
    shape: (p, n) => [n, 2, p.blockSize, p.kvHeads], index: ({ side, block, token, head }) => [block, side, token, head],
  },
  {
    name: 'vLLM, all layers, stacked', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'stacked', layer: { index: layer, count: layers } }), scales: perToken,
    shape: (p, n) => [n, layers, 2, p.blockSize, p.kvHeads], index: ({ side, block, token, head }) => [block, layer, side, token, head],
  },
  {
    name: 'vLLM, all layers, stacked, HND', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'stacked', order: 'HND', layer: { index: layer, count: layers } }), scales: perToken,
    shape: (p, n) => [n, p.kvHeads, layers, 2, p.blockSize], index: ({ side, block, token, head }) => [block, head, layer, side, token],
  },
  {
    name: 'vLLM, all layers, interleaved', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'interleaved', layer: { index: layer, count: layers } }), scales: perToken,
    shape: (p, n) => [n, layers, 2, p.blockSize, p.kvHeads], index: ({ side, block, token, head }) => [block, layer, side, token, head],
  },
  {
    name: 'vLLM, all layers, interleaved, HND', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'interleaved', order: 'HND', layer: { index: layer, count: layers } }), scales: perToken,
    shape: (p, n) => [n, 2, p.kvHeads, layers, p.blockSize], index: ({ side, block, token, head }) => [block, side, head, layer, token],
  },
  {
    name: 'vLLM, all layers, packed', together: true, layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'packed', layer: { index: layer, count: layers } }), scales: perToken,
    shape: (p, n) => [n, layers, p.blockSize, p.kvHeads, 2], index: ({ side, block, token, head }) => [block, layer, token, head, side],
  },
  {
    name: 'vLLM, all layers, packed, HND, inline scales', together: true, inline: true,
    layout: (p, blocks) => vllmLayout(p, { blocks, shape: 'packed', order: 'HND', layer: { index: layer, count: layers }, inlineScales: true }),
    shape: (p, n) => [n, p.kvHeads, layers, p.blockSize, 2], index: ({ side, block, token, head }) => [block, head, layer, token, side],
  },
  {
    name: 'FlashInfer, NHD', together: true, layout: (p, pages) => flashinferLayout(p, { pages }),
    shape: (p, n) => [n, 2, p.blockSize, p.kvHeads], index: ({ side, block, token, head }) => [block, side, token, head],
  },
  {
    name: 'FlashInfer, HND', together: true, layout: (p, pages) => flashinferLayout(p, { pages, kvLayout: 'HND' }),
    shape: (p, n) => [n, 2, p.kvHeads, p.blockSize], index: ({ side, block, token, head }) => [block, side, head, token],
  },
  {
    name: 'FlashInfer, tuple, HND', together: false, layout: (p, pages) => flashinferLayout(p, { pages, kvLayout: 'HND', tuple: true }),
    shape: (p, n) => [n, p.kvHeads, p.blockSize], index: ({ block, token, head }) => [block, head, token],
  },
  {
    name: 'Mila', together: false, tokens: some, layout: (p, blocks) => milaLayout(p, { maxSeqLen: blocks * p.blockSize + 3, tokens: some(p, blocks) }),
    shape: (p, n) => [p.kvHeads, n * p.blockSize + 3], index: ({ position, head }) => [head, position],
  },
  {
    name: 'ferrum', together: false, tokens: some, layout: (p, blocks) => ferrumLayout(p, { tokens: some(p, blocks) }),
    shape: (p, n) => [n * p.blockSize - Math.floor(p.blockSize / 2), p.kvHeads], index: ({ position, head }) => [position, head],
  },
];

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** An index counted from its axis' other half where it is negative: −1 − i is half + i. */
function flat(shape: readonly number[], index: readonly number[]): number {
  let at = 0;
  for (const [axis, extent] of shape.entries()) at = at * extent + (index[axis] < 0 ? extent / 2 - 1 - index[axis] : index[axis]);
  return at;
}

/** Fills every byte: codes and scales of any kind, NaN with payloads among them. */
function anyBytes<T extends ArrayBufferView>(array: T, numbers: Random): T {
  const bytes = bytesOf(array);
  for (let i = 0; i < bytes.length; i++) bytes[i] = numbers.bits();
  return array;
}

export function anyNhd(page: PageLayout, blocks: number, numbers: Random): NhdTensors {
  const { keyCache, valueCache } = poison(page, blocks);
  const scales = (side: 'k' | 'v'): Float32Array | undefined => {
    const { groupSize } = page[side];
    return groupSize === 0 ? undefined : anyBytes(new Float32Array((blocks * page.blockSize * page.kvHeads * page.headDim) / groupSize), numbers);
  };
  return { keyCache: anyBytes(keyCache, numbers), valueCache: anyBytes(valueCache, numbers), keyScale: scales('k'), valueScale: scales('v') };
}

/** Tensors of the system with any bytes in them, of which every row that the system has is one of these. */
export function foreignTensors(foreign: Foreign, page: PageLayout, blocks: number, nhd: NhdTensors, numbers: Random): CacheTensors {
  const inlined = foreign.inline ? 4 : 0;
  const shape = foreign.shape(page, blocks);
  const newCodes = (like: CodeArray): CodeArray => anyBytes(new (like.constructor as new (length: number) => CodeArray)(product(shape) * (page.headDim + inlined)), numbers);
  const keyCache = newCodes(nhd.keyCache);
  const valueCache = foreign.together ? keyCache : newCodes(nhd.valueCache);
  const scaleOf = foreign.scales ?? foreign;
  const scaleShape = scaleOf.shape(page, blocks);
  const groups = (side: 'k' | 'v'): number => (page[side].groupSize === 0 ? 0 : page.headDim / page[side].groupSize);
  const newScales = (side: 'k' | 'v'): Float32Array | undefined => (groups(side) === 0 ? undefined : anyBytes(new Float32Array(product(scaleShape) * groups(side)), numbers));
  const inline = foreign.inline ? new Float32Array(keyCache.buffer) : undefined;
  const keyScale = inline ?? newScales('k');
  const valueScale = inline ?? (scaleOf.together ? keyScale : newScales('v'));
  const tokens = foreign.tokens?.(page, blocks) ?? blocks * page.blockSize;
  for (const [side, [plain, codes, plainScales, scales]] of [[nhd.keyCache, keyCache, nhd.keyScale, keyScale] as const, [nhd.valueCache, valueCache, nhd.valueScale, valueScale] as const].entries()) {
    const size = codes.BYTES_PER_ELEMENT;
    const count = groups(side === 0 ? 'k' : 'v');
    for (let position = 0; position < tokens; position++) {
      for (let head = 0; head < page.kvHeads; head++) {
        const place: Place = { side: side as 0 | 1, block: Math.floor(position / page.blockSize), token: position % page.blockSize, position, head };
        const row = position * page.kvHeads + head;
        const at = flat(shape, foreign.index(place)) * (page.headDim + inlined);
        for (let i = 0; i < page.headDim * size; i++) bytesOf(codes)[at * size + i] = bytesOf(plain)[row * page.headDim * size + i];
        for (let i = 0; i < count * 4; i++) {
          const scaleAt = foreign.inline ? at + page.headDim : flat(scaleShape, scaleOf.index(place)) * count * 4;
          bytesOf(scales!)[scaleAt + i] = bytesOf(plainScales!)[row * count * 4 + i];
        }
      }
    }
  }
  return { keyCache, valueCache, keyScale, valueScale, layout: foreign.layout(page, blocks) };
}
