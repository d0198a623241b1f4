import { SlotMarks } from '../append.js';
import type { NhdTensors, Pages } from '../backend.js';
import { checkInteger, type PageLayout } from '../layout.js';
import { checkNhd, packNhd, unpackNhd } from '../nhd.js';
import type { WasmMemory } from './memory.js';

/** Pages in WebAssembly memory; every operation is synchronous. */
export class WasmPages implements Pages {
  readonly byteLength: number;
  /** @internal finds slots that a call names twice */
  readonly marks: SlotMarks;
  #address: number | undefined;

  /** @internal use `backend.createPages` */
  constructor(
    /** @internal */
    readonly memory: WasmMemory,
    readonly layout: PageLayout,
    readonly count: number,
  ) {
    this.byteLength = layout.bytes * count;
    const address = memory.allocateZeroed(this.byteLength, 'pages');
    try {
      this.marks = new SlotMarks(count * layout.blockSize);
    } catch (error) {
      memory.free(address);
      throw error;
    }
    this.#address = address;
  }

  /** @internal first byte of page 0; throws when the pages were disposed of */
  get address(): number {
    if (this.#address === undefined || this.memory.closed) throw new TypeError('"pages" expected to be in use, got pages that were disposed of');
    return this.#address;
  }

  copyPages(from: ArrayLike<number>, to: ArrayLike<number>): void {
    if (from.length !== to.length) throw new RangeError(`"to" expected ${from.length} pages, as "from", got ${to.length}`);
    for (let i = 0; i < from.length; i++) {
      checkInteger(from[i], `from[${i}]`, 0, this.count - 1);
      checkInteger(to[i], `to[${i}]`, 0, this.count - 1);
    }
    const { address, layout, memory } = this;
    for (let i = 0; i < from.length; i++) {
      const source = address + from[i] * layout.bytes;
      memory.u8.copyWithin(address + to[i] * layout.bytes, source, source + layout.bytes);
    }
  }

  import(tensors: NhdTensors, firstPage = 0): void {
    const blocks = checkNhd(this.layout, tensors);
    checkInteger(firstPage, 'firstPage', 0, this.count - blocks);
    packNhd(this.layout, tensors, blocks, this.#bytes(firstPage, blocks));
  }

  export(firstPage = 0, count = this.count - firstPage): NhdTensors {
    checkInteger(firstPage, 'firstPage', 0, this.count);
    checkInteger(count, 'count', 0, this.count - firstPage);
    return unpackNhd(this.layout, count, this.#bytes(firstPage, count));
  }

  #bytes(firstPage: number, count: number): Uint8Array {
    const start = this.address + firstPage * this.layout.bytes;
    return this.memory.u8.subarray(start, start + count * this.layout.bytes);
  }

  dispose(): void {
    if (this.#address === undefined) return;
    this.memory.free(this.#address);
    this.#address = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
