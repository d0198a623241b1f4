import { SlotMarks } from '../append.js';
import type { CacheTensors, NhdTensors, Pages } from '../backend.js';
import { checkInteger, checkPageCopies, checkPageLayout, type PageLayout } from '../layout.js';
import { checkTargets, checkTensors, newTensors, packPages, unpackPages } from '../tensors.js';
import type { WasmMemory } from './memory.js';

/** Pages as the kernels see them. */
export interface PageBytes {
  readonly layout: PageLayout;
  /** First byte of page 0. */
  readonly address: number;
}

/**
 * Pages in WebAssembly memory; every operation is synchronous.
 *
 * Each has a first step of its own, `prepare…`: it checks, and gives what remains to be done, which a backend with threads
 * may have to put off.
 */
export class WasmPages implements Pages {
  readonly byteLength: number;
  /** @internal finds slots that a call names twice */
  readonly marks: SlotMarks;
  #address: number | undefined;

  /** @internal use `backend.createPages` */
  constructor(
    /** @internal */
    readonly memory: WasmMemory,
    /** Where everything lies in a page. */
    readonly layout: PageLayout,
    /** How many pages there are. */
    readonly count: number,
  ) {
    if (memory.closed) throw new TypeError('"backend" expected to be in use, got one that was disposed of');
    checkPageLayout(layout);
    checkInteger(count, 'count', 1, Math.floor((2 ** 31 - 1) / layout.blockSize));
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
    this.prepareCopy(from, to)();
  }

  /** @internal */
  prepareCopy(from: ArrayLike<number>, to: ArrayLike<number>): () => void {
    checkPageCopies(from, to, this.count);
    const { address, layout, memory } = this;
    const [sources, targets] = [Int32Array.from(from), Int32Array.from(to)];
    return () => {
      for (const [i, page] of sources.entries()) {
        const source = address + page * layout.bytes;
        memory.u8.copyWithin(address + targets[i] * layout.bytes, source, source + layout.bytes);
      }
    };
  }

  import(tensors: CacheTensors, firstPage = 0): void {
    this.prepareImport(tensors, firstPage)();
  }

  /** @internal */
  prepareImport(tensors: CacheTensors, firstPage = 0): () => void {
    const checked = checkTensors(this.layout, tensors, firstPage, this.count);
    const bytes = this.#bytes(firstPage, checked.pages);
    return () => packPages(this.layout, checked, bytes());
  }

  export(firstPage = 0, count = this.count - firstPage): NhdTensors {
    return this.prepareExport(firstPage, count)();
  }

  /** @internal */
  prepareExport(firstPage = 0, count = this.count - firstPage): () => NhdTensors {
    checkInteger(firstPage, 'firstPage', 0, this.count);
    checkInteger(count, 'count', 0, this.count - firstPage);
    const bytes = this.#bytes(firstPage, count);
    return () => {
      const made = newTensors(this.layout, count);
      unpackPages(this.layout, made, bytes());
      return made.tensors;
    };
  }

  exportInto(tensors: CacheTensors, firstPage = 0): void {
    this.prepareExportInto(tensors, firstPage)();
  }

  /** @internal */
  prepareExportInto(tensors: CacheTensors, firstPage = 0): () => void {
    const checked = checkTargets(this.layout, tensors, firstPage, this.count);
    const bytes = this.#bytes(firstPage, checked.pages);
    return () => unpackPages(this.layout, checked, bytes());
  }

  /** Some pages, in the view of the moment. */
  #bytes(firstPage: number, count: number): () => Uint8Array {
    const start = this.address + firstPage * this.layout.bytes;
    return () => this.memory.u8.subarray(start, start + count * this.layout.bytes);
  }

  dispose(): void {
    this.prepareDispose()();
  }

  /** @internal nobody can use the pages from now on; what remains is to give back their memory */
  prepareDispose(): () => void {
    const address = this.#address;
    this.#address = undefined;
    return () => {
      if (address !== undefined) this.memory.free(address);
    };
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
