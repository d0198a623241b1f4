/** The backend's own buffers: parameters and tables, working memory, and what results are read through. */
import { MAP_READ, usage } from './constants.js';

/** A range of a buffer. */
export interface Region {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** Every device allows offsets that are multiples of this. */
const OFFSET_ALIGNMENT = 256;
const CHUNK_BYTES = 2 ** 20;
/** Bytes that stay as they were written, at least, before their buffer is destroyed. */
const KEPT_BYTES = 2 ** 24;

const align = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

/** What is bound of so many bytes: a power of two, so that a table which grows is seldom bound as another size. */
const boundSize = (bytes: number): number => (bytes > CHUNK_BYTES ? align(bytes, OFFSET_ALIGNMENT) : Math.max(OFFSET_ALIGNMENT, 2 ** Math.ceil(Math.log2(bytes))));

/**
 * Parameters and tables of calls: each has a place of its own, so that calls recorded into one encoder do not see each
 * other's. The oldest go when much has been written since: an encoder that still needs them by then fails to be submitted,
 * and is not computed with others' parameters.
 */
export class Arena {
  readonly #device: GPUDevice;
  readonly #chunks: GPUBuffer[] = [];
  #kept = 0;
  #used = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  write(data: ArrayBufferView<ArrayBuffer>): Region {
    const size = boundSize(data.byteLength);
    let chunk = this.#chunks.at(-1);
    if (!chunk || this.#used + size > chunk.size) chunk = this.#grow(size);
    const offset = this.#used;
    this.#used = offset + size;
    if (data.byteLength > 0) this.#device.queue.writeBuffer(chunk, offset, data);
    return { buffer: chunk, offset, size };
  }

  #grow(size: number): GPUBuffer {
    const chunk = this.#device.createBuffer({ label: 'fp8-kv parameters', size: Math.max(CHUNK_BYTES, size), usage: usage.uniform | usage.storage | usage.copyDst });
    this.#chunks.push(chunk);
    this.#kept += chunk.size;
    while (this.#chunks.length > 1 && this.#kept - this.#chunks[0].size >= KEPT_BYTES) {
      const oldest = this.#chunks.shift()!;
      this.#kept -= oldest.size;
      oldest.destroy();
    }
    this.#used = 0;
    return chunk;
  }

  destroy(): void {
    for (const chunk of this.#chunks.splice(0)) chunk.destroy();
  }
}

/**
 * A buffer that grows when asked for more than it has. Commands that were recorded with it may still be waiting then, so
 * what it was lives on until the end; as it doubles, that is no more than it is.
 */
export class Scratch {
  readonly #device: GPUDevice;
  readonly #label: string;
  readonly #retired: GPUBuffer[] = [];
  #whole: Region | undefined;

  constructor(device: GPUDevice, label: string) {
    this.#device = device;
    this.#label = `fp8-kv ${label}`;
  }

  /**
   * @param most no buffer of this device may be larger
   * @returns all of the buffer, so that calls which need more or less of it bind the same
   */
  reserve(size: number, most: number): Region {
    if (!this.#whole || this.#whole.size < size) {
      if (this.#whole) this.#retired.push(this.#whole.buffer);
      const grown = Math.max(size, Math.min(most - (most % 16), Math.max(65536, 2 ** Math.ceil(Math.log2(size)))));
      this.#whole = { buffer: this.#device.createBuffer({ label: this.#label, size: grown, usage: usage.storage | usage.copySrc | usage.copyDst }), offset: 0, size: grown };
    }
    return this.#whole;
  }

  destroy(): void {
    this.#whole?.buffer.destroy();
    for (const buffer of this.#retired.splice(0)) buffer.destroy();
    this.#whole = undefined;
  }
}

/** Buffers through which results come back to the host; each call on its way has one of its own. */
export class Readbacks {
  readonly #device: GPUDevice;
  readonly #all = new Set<GPUBuffer>();
  readonly #idle: GPUBuffer[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  take(size: number): GPUBuffer {
    const fits = this.#idle.findIndex((buffer) => buffer.size >= size);
    if (fits >= 0) return this.#idle.splice(fits, 1)[0];
    // One that is too small makes room for one that is not: as many stay as calls were ever on their way at once.
    this.#release(this.#idle.pop());
    const grown = Math.min(this.#device.limits.maxBufferSize, Math.max(4096, 2 ** Math.ceil(Math.log2(size))));
    const buffer = this.#device.createBuffer({ label: 'fp8-kv results', size: Math.max(grown, size), usage: usage.mapRead | usage.copyDst });
    this.#all.add(buffer);
    return buffer;
  }

  /** Waits for what was submitted, hands the bytes to `read`, and takes the buffer back. */
  async read<T>(buffer: GPUBuffer, size: number, read: (bytes: ArrayBuffer) => T): Promise<T> {
    try {
      await buffer.mapAsync(MAP_READ, 0, size);
      const result = read(buffer.getMappedRange(0, size));
      buffer.unmap();
      this.#idle.push(buffer);
      return result;
    } catch (error) {
      this.#release(buffer);
      throw error;
    }
  }

  #release(buffer: GPUBuffer | undefined): void {
    if (buffer && this.#all.delete(buffer)) buffer.destroy();
  }

  destroy(): void {
    this.#idle.length = 0;
    for (const buffer of this.#all) buffer.destroy();
    this.#all.clear();
  }
}
