/** Caches that are filled on the GPU: some tokens are appended, and their pages copied over and over. */
import { pageLayout, type Format, type PageLayout } from '../../src/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import type { WebgpuPages } from '../../src/webgpu/pages.js';
import { normals, SEED } from '../inputs.js';
import { BLOCK } from '../pages.js';
import type { Shape } from '../shapes.js';
import { emptyBuffer } from './buffers.js';

/** Pages that differ. */
const UNIQUE_PAGES = 256;

/** The keys and values of the pages that differ: [tokens, kvHeads, headDim] */
export interface Tokens {
  readonly key: Float32Array;
  readonly value: Float32Array;
}

export function uniqueTokens({ kvHeads, headDim }: Shape): Tokens {
  const length = UNIQUE_PAGES * BLOCK * kvHeads * headDim;
  return { key: normals(SEED, length), value: normals(SEED + 1, length) };
}

export const layoutOf = ({ kvHeads, headDim }: Shape, dtype: Format): PageLayout => pageLayout({ kvHeads, headDim, blockSize: BLOCK, k: { dtype }, v: { dtype } });

/** Which of the unique tokens lies in a place of a page. */
export const sourceToken = (page: number, place: number): number => (page % UNIQUE_PAGES) * BLOCK + place;

function copyFirstPages({ device }: WebgpuBackend, { buffer, layout, count }: WebgpuPages): void {
  const bytes = UNIQUE_PAGES * layout.bytes;
  // A buffer cannot be copied into itself.
  const first = emptyBuffer(device, bytes);
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, first, 0, bytes);
  for (let page = UNIQUE_PAGES; page < count; page += UNIQUE_PAGES) {
    encoder.copyBufferToBuffer(first, 0, buffer, page * layout.bytes, Math.min(UNIQUE_PAGES, count - page) * layout.bytes);
  }
  device.queue.submit([encoder.finish()]);
  first.destroy();
}

export async function fillPages(backend: WebgpuBackend, shape: Shape, { key, value }: Tokens, dtype: Format, count: number): Promise<WebgpuPages> {
  const pages = backend.createPages(layoutOf(shape, dtype), count);
  const slotMapping = Int32Array.from({ length: Math.min(count, UNIQUE_PAGES) * BLOCK }, (_, slot) => slot);
  const length = slotMapping.length * shape.kvHeads * shape.headDim;
  await backend.append({ pages, key: key.subarray(0, length), value: value.subarray(0, length), slotMapping });
  if (count > UNIQUE_PAGES) copyFirstPages(backend, pages);
  return pages;
}

/** Bytes that attention must read of a key and its value: codes and scales of all heads. Pages of 16 tokens hold nothing else. */
export const bytesPerKey = ({ blockSize, bytes }: PageLayout): number => bytes / blockSize;
