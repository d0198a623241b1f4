/**
 * One linear memory, handed out in blocks. Views are renewed whenever it has grown: growing detaches them, or, where the
 * memory is shared, leaves them as long as they were. Nothing of it goes to users but copies.
 */
import { align16 } from '../layout.js';

/** Bytes of a page of WebAssembly memory. */
export const WASM_PAGE = 65536;
/** 4 GiB: the end of a 32-bit memory. */
const MAX_WASM_PAGES = 65536;
const ALIGNMENT = 64;
/** No block ends at 4 GiB itself: the kernels compare addresses with that of a block's end, which would be 0. */
const LAST_END = MAX_WASM_PAGES * WASM_PAGE - ALIGNMENT;

interface Gap {
  start: number;
  end: number;
}

export class WasmMemory {
  readonly memory: WebAssembly.Memory;
  /** Set when the owner is disposed of; the memory itself goes with the last reference. */
  closed = false;
  /** Free ranges in ascending order, none touching another. The first bytes stay unused: address 0 means "none". */
  readonly #gaps: Gap[];
  readonly #sizes = new Map<number, number>();
  /** Where memory begins that no block has held yet. */
  #used = 0;
  #buffer: ArrayBufferLike | undefined;
  #u8!: Uint8Array;
  #i32!: Int32Array;
  #f32!: Float32Array;
  #view!: DataView;

  /** @param shared between threads: needs SharedArrayBuffer */
  constructor(readonly shared = false) {
    this.memory = new WebAssembly.Memory({ initial: 1, maximum: MAX_WASM_PAGES, shared });
    this.#gaps = [{ start: 1024, end: WASM_PAGE }];
  }

  #renew(): void {
    const buffer = this.memory.buffer;
    if (buffer === this.#buffer) return;
    this.#buffer = buffer;
    this.#u8 = new Uint8Array(buffer);
    this.#i32 = new Int32Array(buffer);
    this.#f32 = new Float32Array(buffer);
    this.#view = new DataView(buffer);
  }

  get u8(): Uint8Array {
    this.#renew();
    return this.#u8;
  }

  get i32(): Int32Array {
    this.#renew();
    return this.#i32;
  }

  get f32(): Float32Array {
    this.#renew();
    return this.#f32;
  }

  get view(): DataView {
    this.#renew();
    return this.#view;
  }

  /**
   * A block of at least `bytes`, aligned to 64; not cleared.
   * @param purpose what it is for, as the error calls it
   * @throws RangeError when 4 GiB, or what the machine gives, is not enough
   */
  allocate(bytes: number, purpose: string): number {
    const size = Math.ceil(Math.max(bytes, 1) / ALIGNMENT) * ALIGNMENT;
    let gap = this.#gaps.find(({ start, end }) => end - start >= size);
    if (gap === undefined) gap = this.#grow(size, purpose);
    const start = gap.start;
    gap.start += size;
    if (gap.start === gap.end) this.#gaps.splice(this.#gaps.indexOf(gap), 1);
    this.#sizes.set(start, size);
    this.#used = Math.max(this.#used, gap.start);
    return start;
  }

  /** As {@link allocate}, filled with zeros. What was never handed out before is zero already, and stays uncommitted. */
  allocateZeroed(bytes: number, purpose: string): number {
    const used = this.#used;
    const start = this.allocate(bytes, purpose);
    if (start < used) this.u8.fill(0, start, Math.min(start + bytes, used));
    return start;
  }

  #grow(size: number, purpose: string): Gap {
    const { byteLength } = this.memory.buffer;
    const end = Math.min(byteLength, LAST_END);
    const last = this.#gaps.at(-1);
    const start = last?.end === end ? last.start : end;
    const pages = Math.ceil((start + size - byteLength) / WASM_PAGE);
    const refused = (why: string) => new RangeError(`"${purpose}" expected to fit into WebAssembly memory, got ${size} bytes: ${why}`);
    if (start + size > LAST_END) throw refused(`${LAST_END - start} bytes are left of 4 GiB`);
    try {
      this.memory.grow(pages);
    } catch (error) {
      throw refused(`the machine did not give ${pages * WASM_PAGE} bytes more (${(error as Error).message})`);
    }
    this.#give(end, Math.min(byteLength + pages * WASM_PAGE, LAST_END));
    return this.#gaps.at(-1)!;
  }

  /** Gives a block back. */
  free(start: number): void {
    const size = this.#sizes.get(start);
    if (size === undefined) throw new Error(`no block begins at ${start}`);
    this.#sizes.delete(start);
    this.#give(start, start + size);
  }

  /** Puts a range among the gaps, joined with its neighbours. */
  #give(start: number, end: number): void {
    const next = this.#gaps.findIndex((gap) => gap.start >= end);
    const index = next < 0 ? this.#gaps.length : next;
    const before = this.#gaps[index - 1];
    const after = this.#gaps[index];
    const joinsBefore = before !== undefined && before.end === start;
    const joinsAfter = after !== undefined && after.start === end;
    if (joinsBefore && joinsAfter) {
      before.end = after.end;
      this.#gaps.splice(index, 1);
    } else if (joinsBefore) before.end = end;
    else if (joinsAfter) after.start = start;
    else this.#gaps.splice(index, 0, { start, end });
  }
}

/** Carves consecutive 16-byte aligned pieces from an address. */
export function carve(address: number): (bytes: number) => number {
  let end = address;
  return (bytes) => (end += align16(bytes)) - align16(bytes);
}

/** A block that is enlarged on demand and whose contents do not outlive a call. */
export class Scratch {
  #start = 0;
  #bytes = 0;

  constructor(
    private readonly memory: WasmMemory,
    private readonly purpose: string,
  ) {}

  /** Where it is. */
  get address(): number {
    return this.#start;
  }

  /** The address of at least `bytes`. */
  reserve(bytes: number): number {
    if (bytes > this.#bytes) {
      const grown = Math.max(bytes, Math.min(2 * this.#bytes, this.#bytes + 2 ** 24));
      if (this.#bytes > 0) this.memory.free(this.#start);
      this.#bytes = 0;
      this.#start = this.memory.allocate(grown, this.purpose);
      this.#bytes = grown;
    }
    return this.#start;
  }
}
