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
/** At least so much is bound of a chunk: what every device allows for parameters, and a table of 4,096 pages. */
const BOUND_BYTES = 2 ** 14;
/** A table that takes more has a buffer of its own. */
const LONG_BYTES = CHUNK_BYTES / 4;
/** Bytes that stay as they were written, at least, before their buffer is destroyed. */
const KEPT_BYTES = 2 ** 24;

const align = (bytes: number, to: number): number => Math.ceil(bytes / to) * to;

/** What is bound of so many bytes, beginning with them: the same for most, so that a table which grows needs no other bind group. */
const boundSize = (bytes: number): number => (bytes > CHUNK_BYTES ? align(bytes, OFFSET_ALIGNMENT) : Math.max(BOUND_BYTES, 2 ** Math.ceil(Math.log2(bytes))));

/** Where a call's parameters are put together: by their fields, for the words that go to the GPU. */
export function paramBlock(bytes: number): { readonly words: Int32Array; readonly view: DataView } {
  const words = new Int32Array(bytes / 4);
  return { words, view: new DataView(words.buffer) };
}

/** The same bytes, as they are compared: 0 is not -0, and NaN is NaN. */
const wordsOf = ({ buffer, byteOffset, length }: Float32Array): Int32Array => new Int32Array(buffer, byteOffset, length);

/** Numbers that a call puts together, in memory that every call uses again. */
export class FloatList {
  #floats = new Float32Array(64);
  #length = 0;

  clear(): void {
    this.#length = 0;
  }

  /** @returns where they begin */
  add(values: Float32Array): number {
    const at = this.#length;
    this.#length += values.length;
    if (this.#length > this.#floats.length) {
      const longer = new Float32Array(2 * this.#length);
      longer.set(this.#floats);
      this.#floats = longer;
    }
    this.#floats.set(values, at);
    return at;
  }

  get words(): Int32Array {
    return wordsOf(this.#floats.subarray(0, this.#length));
  }
}

/** A number by which equal words are found. Of long tables it takes but some: two that differ elsewhere are told apart by comparing. */
function hashOf(words: Int32Array): number {
  const step = Math.max(1, words.length >> 6);
  let hash = words.length;
  for (let i = 0; i < words.length; i += step) {
    hash = Math.imul(hash ^ words[i], 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  // Small enough for engines to hold it without an object.
  return hash & 0x3fffffff;
}

/** A buffer of parameters and tables, and what it holds. */
interface Chunk {
  readonly buffer: GPUBuffer;
  readonly words: Int32Array<ArrayBuffer>;
}

/** Words that lie in a chunk. */
interface Held {
  readonly chunk: Chunk;
  readonly region: Region;
  readonly length: number;
}

/**
 * Parameters and tables of calls: each has a place of its own, so that calls recorded into one encoder do not see each
 * other's. What a place holds never changes; so calls with equal ones share it, as those of a model's layers do. The oldest
 * go when much has been written since: an encoder that still needs them by then fails to be submitted, and is not computed
 * with others' parameters.
 */
export class Arena {
  readonly #device: GPUDevice;
  /** That which was used least recently first. */
  readonly #chunks: Chunk[] = [];
  /** The newest but for those of one long table: what is to be written goes there. */
  #open: Chunk | undefined;
  /** What lies there, and the long tables. */
  readonly #held = new Map<number, Held>();
  #kept = 0;
  #used = 0;
  #flushed = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** A place with these words. They are there once {@link flush} has been called. */
  write(words: Int32Array): Region {
    const hash = hashOf(words);
    const held = this.#held.get(hash);
    if (held && holds(held, words)) {
      if (held.chunk !== this.#open) this.#usedNow(held.chunk);
      return held.region;
    }
    const { byteLength, length } = words;
    const size = boundSize(byteLength);
    if (size > LONG_BYTES) {
      // By itself, so that all layers share it also where their parameters fill chunk after chunk.
      const chunk = this.#make(size);
      chunk.words.set(words);
      this.#device.queue.writeBuffer(chunk.buffer, 0, chunk.words);
      const region = { buffer: chunk.buffer, offset: 0, size };
      this.#held.set(hash, { chunk, region, length });
      return region;
    }
    if (!this.#open || this.#used + size > this.#open.buffer.size) this.#grow();
    const chunk = this.#open!;
    const region = { buffer: chunk.buffer, offset: this.#used, size };
    chunk.words.set(words, region.offset / 4);
    this.#used += align(Math.max(byteLength, 1), OFFSET_ALIGNMENT);
    this.#held.set(hash, { chunk, region, length });
    return region;
  }

  /** Writes what is new, all at once. To be called before what reads it is submitted. */
  flush(): void {
    const first = this.#flushed;
    if (first === this.#used) return;
    const { buffer, words } = this.#open!;
    this.#device.queue.writeBuffer(buffer, first, words, first / 4, (this.#used - first) / 4);
    this.#flushed = this.#used;
  }

  #usedNow(chunk: Chunk): void {
    this.#chunks.push(...this.#chunks.splice(this.#chunks.indexOf(chunk), 1));
  }

  #make(size: number, words = new Int32Array(size / 4)): Chunk {
    const buffer = this.#device.createBuffer({ label: 'fp8-kv parameters', size, usage: usage.uniform | usage.storage | usage.copyDst });
    const chunk = { buffer, words };
    if (this.#open) this.#usedNow(this.#open);
    this.#chunks.push(chunk);
    this.#kept += size;
    while (this.#chunks.length > 2 && this.#kept - this.#chunks[0].buffer.size >= KEPT_BYTES) {
      const oldest = this.#chunks.shift()!;
      this.#kept -= oldest.buffer.size;
      this.#forget(oldest);
      oldest.buffer.destroy();
    }
    return chunk;
  }

  /** It may go now while an encoder waits: nothing of it is used again. */
  #forget(chunk: Chunk): void {
    for (const [hash, held] of this.#held) if (held.chunk === chunk) this.#held.delete(hash);
  }

  #grow(): void {
    this.flush();
    if (this.#open) this.#forget(this.#open);
    this.#open = this.#make(CHUNK_BYTES, this.#open?.words);
    this.#used = 0;
    this.#flushed = 0;
  }

  destroy(): void {
    for (const { buffer } of this.#chunks.splice(0)) buffer.destroy();
    this.#held.clear();
    this.#open = undefined;
    this.#used = 0;
    this.#flushed = 0;
  }
}

function holds({ chunk, region, length }: Held, words: Int32Array): boolean {
  if (length !== words.length) return false;
  const first = region.offset / 4;
  for (let i = 0; i < length; i++) if (chunk.words[first + i] !== words[i]) return false;
  return true;
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

  /** Takes back a buffer that nothing is read through. */
  giveBack(buffer: GPUBuffer): void {
    this.#idle.push(buffer);
  }

  /**
   * Waits for what was submitted, hands the bytes to `read`, and takes the buffer back.
   * @param taken settles once it is known whether what fills the buffer was accepted: rejects where the bytes are old ones
   */
  async read<T>(buffer: GPUBuffer, size: number, taken: Promise<void>, read: (bytes: ArrayBuffer) => T): Promise<T> {
    try {
      // Both are on their way at once; a buffer that is being mapped is left alone.
      const [mapped, accepted] = await Promise.allSettled([buffer.mapAsync(MAP_READ, 0, size), taken]);
      if (mapped.status === 'rejected') throw mapped.reason;
      if (accepted.status === 'rejected') throw accepted.reason;
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
