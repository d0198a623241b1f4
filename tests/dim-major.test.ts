/** Keys lie dim-major inside a page where blockSize is a multiple of 8: what goes in and out must not show it. */
import { equal, is } from 'uvu/assert';
import { pageLayout, quantize, wasmBackend, type CodeArray, type FloatArray, type Format, type NhdTensors, type PageLayout } from '../src/index.js';
import { bytesOf, formats } from '../src/formats.js';
import type { WasmPages } from '../src/wasm/pages.js';
import { assertSameBits } from './bits.js';
import { poison } from './fixture.js';
import { random } from './random.js';
import { suite } from './suite.js';

const test = suite('dim-major');
const backend = wasmBackend();
const blockSizes = [1, 5, 8, 16, 24, 64];
const allFormats: Format[] = ['e4m3fn', 'e5m2', 'f16', 'f32'];

/** The bytes of the pages as they lie in memory. */
const rawBytes = (pages: WasmPages): Uint8Array => pages.memory.u8.slice(pages.address, pages.address + pages.byteLength);

function randomTensors(layout: PageLayout, blocks: number, seed: number): NhdTensors {
  const { bits } = random(seed);
  const tensors = poison(layout, blocks);
  for (const array of Object.values(tensors)) {
    const bytes = array === undefined ? [] : bytesOf(array);
    for (let i = 0; i < bytes.length; i++) bytes[i] = bits();
  }
  return tensors;
}

for (const blockSize of blockSizes) {
  for (const format of allFormats) {
    const layoutOf = (headDim: number) => pageLayout({ kvHeads: 3, headDim, blockSize, k: { dtype: format }, v: { dtype: format } });

    test(`blockSize ${blockSize}, ${format}: import puts every code where the strides say, and export finds it`, () => {
      const layout = layoutOf(24);
      const pages = backend.createPages(layout, 3);
      const tensors = randomTensors(layout, 2, blockSize);
      pages.import(tensors, 1);
      const exported = pages.export(1);
      const raw = rawBytes(pages);
      const { bytes } = formats[format];
      is(layout.k.tokenStride < layout.k.dimStride, blockSize % 8 === 0);
      is(layout.v.dimStride, bytes);
      for (const [side, tensor, scale] of [['k', 'keyCache', 'keyScale'], ['v', 'valueCache', 'valueScale']] as const) {
        const { codes, headStride, tokenStride, dimStride, scales, scaleHeadStride } = layout[side];
        assertSameBits(exported[tensor], tensors[tensor], tensor);
        const plain = bytesOf(tensors[tensor]);
        const found = new Uint8Array(plain.length);
        const foundScales = new Uint8Array(2 * blockSize * 3 * 4);
        for (let row = 0; row < 2 * blockSize * 3; row++) {
          const [head, token] = [row % 3, Math.floor(row / 3) % blockSize];
          const page = (1 + Math.floor(row / 3 / blockSize)) * layout.bytes;
          for (let d = 0; d < 24; d++) {
            const at = page + codes + head * headStride + token * tokenStride + d * dimStride;
            found.set(raw.subarray(at, at + bytes), (row * 24 + d) * bytes);
          }
          const at = page + scales + head * scaleHeadStride + token * 4;
          foundScales.set(raw.subarray(at, at + 4), row * 4);
        }
        assertSameBits(found, plain, `${tensor}, by its strides`);
        if (tensors[scale]) {
          assertSameBits(exported[scale]!, tensors[scale], scale);
          assertSameBits(foundScales, bytesOf(tensors[scale]), `${scale}, by its strides`);
        }
      }
      pages.dispose();
    });

    for (const headDim of [8, 80, 256]) {
      test(`blockSize ${blockSize}, ${format}, headDim ${headDim}: append writes what quantize gives, and no other slot`, () => {
        const layout = layoutOf(headDim);
        const blocks = Math.ceil(70 / blockSize) + 1;
        const pages = backend.createPages(layout, blocks);
        pages.import(poison(layout, blocks));
        const tokens = 61;
        const x: FloatArray = format === 'f16'
          ? Uint16Array.from({ length: tokens * 3 * headDim }, (_, i) => ((i * 331) & 0x7bff) | ((i & 1) << 15))
          : random(headDim).normals(tokens * 3 * headDim);
        const slotMapping = Int32Array.from({ length: tokens }, (_, i) => i + 5);
        backend.append({ pages, key: x, value: x, dtype: format === 'f16' ? 'f16' : 'f32', slotMapping });
        const expected = poison(layout, blocks);
        const quantized = format === 'e4m3fn' || format === 'e5m2' ? quantize(x, { format, rowLength: headDim }) : undefined;
        const codes: CodeArray = quantized?.codes ?? x;
        for (const tensor of ['keyCache', 'valueCache'] as const) {
          expected[tensor].set(codes, 5 * 3 * headDim);
          assertSameBits(pages.export()[tensor], expected[tensor], tensor);
        }
        for (const scale of ['keyScale', 'valueScale'] as const) {
          if (quantized === undefined) continue;
          expected[scale]!.set(quantized.scales, 5 * 3);
          assertSameBits(pages.export()[scale]!, expected[scale]!, scale);
        }
        pages.dispose();
      });
    }
  }
}

/** Slots in runs of random length from random places on, none twice, some tokens left out. */
function raggedSlots(seed: number, slots: number): Int32Array {
  const numbers = random(seed);
  const free = new Set(Array.from({ length: slots }, (_, slot) => slot));
  const mapping: number[] = [];
  while (mapping.length < slots) {
    if (numbers.integer(4) === 0) mapping.push(-1 - numbers.integer(20));
    const start = numbers.integer(2) === 0 ? numbers.integer(slots) : numbers.integer(slots / 8) * 8;
    const length = 1 + numbers.integer(40);
    for (let slot = start; slot < start + length && free.delete(slot); slot++) mapping.push(slot);
    if (free.size === 0) break;
  }
  return Int32Array.from(mapping);
}

for (const format of allFormats) {
  test(`${format}: appended at once, in pieces and one by one: the same bytes in memory`, () => {
    for (const blockSize of blockSizes) {
      for (const headDim of [16, 72]) {
        const seed = blockSize + headDim;
        const layout = pageLayout({ kvHeads: 5, headDim, blockSize, k: { dtype: format }, v: { dtype: 'e5m2' } });
        const blocks = Math.ceil(320 / blockSize);
        const slotMapping = raggedSlots(seed, blocks * blockSize);
        const tokens = slotMapping.length;
        const x = random(seed).normals(tokens * 5 * headDim);
        const written = [tokens, 23, 1].map((longest) => {
          const pages = backend.createPages(layout, blocks);
          const numbers = random(longest);
          for (let start = 0, end = 0; start < tokens; start = end) {
            end = Math.min(tokens, start + (longest === tokens ? tokens : 1 + numbers.integer(longest)));
            const part = x.subarray(start * 5 * headDim, end * 5 * headDim);
            backend.append({ pages, key: part, value: part, slotMapping: slotMapping.subarray(start, end) });
          }
          const bytes = rawBytes(pages);
          pages.dispose();
          return bytes;
        });
        assertSameBits(written[1], written[0], `seed ${seed}, in pieces`);
        assertSameBits(written[2], written[0], `seed ${seed}, one by one`);
      }
    }
  });
}

test('tokens larger than what append takes in at a time still go in by panels, with the same bytes', () => {
  const layout = pageLayout({ kvHeads: 70, headDim: 256, blockSize: 16 });
  const x = random(1).normals(19 * 70 * 256);
  const pages = backend.createPages(layout, 2);
  backend.append({ pages, key: x, value: x, slotMapping: Int32Array.from({ length: 19 }, (_, i) => i + 3) });
  const { keyCache, valueCache } = pages.export();
  equal(keyCache, valueCache);
  assertSameBits((keyCache as Uint8Array).subarray(3 * 70 * 256, 22 * 70 * 256), quantize(x, { rowLength: 256 }).codes);
  pages.dispose();
});
