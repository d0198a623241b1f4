import type { CacheTensors, NhdTensors, Pages } from '../../backend.js';
import type { PageLayout } from '../../layout.js';
import type { WasmPages } from '../pages.js';
import type { Queue } from '../../queue.js';

/** Pages that several threads read: what changes or reads them here takes its turn among the backend's calls. */
export class ThreadedPages implements Pages {
  readonly #queue: Queue;

  /** @internal use `backend.createPages` */
  constructor(
    /** @internal */
    readonly pages: WasmPages,
    queue: Queue,
  ) {
    this.#queue = queue;
  }

  get layout(): PageLayout {
    return this.pages.layout;
  }

  get count(): number {
    return this.pages.count;
  }

  get byteLength(): number {
    return this.pages.byteLength;
  }

  copyPages(from: ArrayLike<number>, to: ArrayLike<number>): void {
    this.#queue.later(this.pages.prepareCopy(from, to));
  }

  /** The tensors must stay as they are until the promise settles. */
  async import(tensors: CacheTensors, firstPage?: number): Promise<void> {
    return this.#queue.run(this.pages.prepareImport(tensors, firstPage));
  }

  async export(firstPage?: number, count?: number): Promise<NhdTensors> {
    return this.#queue.run(this.pages.prepareExport(firstPage, count));
  }

  /** The tensors must be left alone until the promise settles. */
  async exportInto(tensors: CacheTensors, firstPage?: number): Promise<void> {
    return this.#queue.run(this.pages.prepareExportInto(tensors, firstPage));
  }

  /** Later calls are refused; those before are still carried out. */
  dispose(): void {
    this.#queue.later(this.pages.prepareDispose());
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
