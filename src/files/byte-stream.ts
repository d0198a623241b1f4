/** Bytes that come in chunks of any size, taken in pieces of known size. */
import type { Checksum } from '../digest.js';
import { FormatError } from '../errors.js';
import { describe } from '../formats.js';

/** What is used of a ReadableStream: the name itself is known to programs for browsers only. */
interface ChunkStream {
  getReader(): {
    read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
    cancel(): Promise<void>;
  };
}

/**
 * Where a file's bytes come from: all at once, a Blob (also a File), a ReadableStream, or whatever else gives them one after the
 * other, as streams of Node do. Chunks may be of any size, and views of any kind of memory.
 */
export type ByteSource = Uint8Array | { stream(): ChunkStream } | ChunkStream | AsyncIterable<Uint8Array>;

/** How many bytes are made room for, at first, for a piece of which nothing has come yet. */
const FIRST_ROOM = 2 ** 20;

// Not every browser's streams are iterables.
async function* chunksOfStream(stream: ChunkStream): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value!;
  } finally {
    await reader.cancel();
  }
}

const noSource = (source: unknown): TypeError => new TypeError(`"source" expected a Uint8Array, a Blob, a ReadableStream or an iterable of chunks, got ${describe(source)}`);

async function* chunksOf(source: ByteSource): AsyncGenerator<Uint8Array> {
  if (source instanceof Uint8Array) yield source;
  else if (typeof source !== 'object' || source === null) throw noSource(source);
  else if ('getReader' in source) yield* chunksOfStream(source);
  else if (Symbol.asyncIterator in source) yield* source;
  else if ('stream' in source) yield* chunksOfStream(source.stream());
  else throw noSource(source);
}

export class ByteStream {
  readonly #chunks: AsyncGenerator<Uint8Array>;
  #chunk: Uint8Array = new Uint8Array(0);
  #position = 0;

  constructor(
    source: ByteSource,
    private readonly file: string,
  ) {
    this.#chunks = chunksOf(source);
  }

  /** Bytes taken so far. */
  get position(): number {
    return this.#position;
  }

  /**
   * The next bytes, in an array of their own. Room is made as they come: what a file claims to have costs nothing.
   * @param checksum takes them in as they come, so that hashing does not wait for the last of them
   * @throws FormatError where the source ends before
   */
  async take(length: number, checksum?: Checksum): Promise<Uint8Array<ArrayBuffer>> {
    let bytes = new Uint8Array(Math.min(length, FIRST_ROOM));
    for (let filled = 0; filled < length; ) {
      if (!(await this.#fetch())) throw new FormatError(this.file, this.#position, `the file ends at least ${length - filled} bytes too early`);
      if (filled === bytes.length) bytes = grown(bytes, length);
      const part = this.#chunk.subarray(0, bytes.length - filled);
      bytes.set(part, filled);
      this.#chunk = this.#chunk.subarray(part.length);
      await checksum?.update(bytes.subarray(filled, filled + part.length));
      filled += part.length;
      this.#position += part.length;
    }
    return bytes;
  }

  /** @throws FormatError where the source goes on */
  async expectEnd(): Promise<void> {
    if (await this.#fetch()) throw new FormatError(this.file, this.#position, 'the file goes on after its last tensor');
  }

  /** Tells the source that no more is wanted. */
  async close(): Promise<void> {
    await this.#chunks.return(undefined);
  }

  /** Waits for a chunk, unless some of the last is left; false at the end. */
  async #fetch(): Promise<boolean> {
    while (this.#chunk.length === 0) {
      const { done, value } = await this.#chunks.next();
      if (done) return false;
      if (!(value instanceof Uint8Array)) throw new TypeError(`"source" expected chunks of Uint8Array, got ${describe(value)}`);
      this.#chunk = value;
    }
    return true;
  }
}

function grown(bytes: Uint8Array, most: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.min(most, 2 * bytes.length));
  larger.set(bytes);
  return larger;
}
