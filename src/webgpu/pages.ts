import { SlotMarks } from '../append.js';
import type { CacheTensors, NhdTensors, Pages } from '../backend.js';
import { arrangeKeys, checkInteger, checkPageCopies, checkPageLayout, type PageLayout } from '../layout.js';
import { checkTargets, checkTensors, newTensors, packPages, unpackPages, type CheckedTensors } from '../tensors.js';
import { BindGroups } from './bindings.js';
import { usage } from './constants.js';
import type { WebgpuBackend } from './backend.js';
import type { Region } from './memory.js';

/** Pages of one layer in a GPU buffer. */
export class WebgpuPages implements Pages {
  readonly layout: PageLayout;
  readonly byteLength: number;
  /** @internal */
  readonly marks: SlotMarks;
  /** @internal */
  readonly groups: BindGroups;
  readonly #region: Region;
  readonly #onDispose: () => void;
  #disposed = false;
  #failure: Error | undefined;

  /** @internal use `backend.createPages` */
  constructor(
    /** @internal */
    readonly backend: WebgpuBackend,
    layout: PageLayout,
    /** How many pages there are. */
    readonly count: number,
    onDispose: () => void,
  ) {
    this.#onDispose = onDispose;
    checkPageLayout(layout);
    this.layout = arrangeKeys(layout, 'token-major');
    checkInteger(count, 'count', 1, Math.floor((2 ** 31 - 1) / layout.blockSize));
    this.byteLength = this.layout.bytes * count;
    const { maxStorageBufferBindingSize, maxBufferSize } = backend.device.limits;
    const most = Math.min(maxStorageBufferBindingSize, maxBufferSize);
    if (this.byteLength > most) {
      const [limit, fits] = [maxStorageBufferBindingSize < maxBufferSize ? 'maxStorageBufferBindingSize' : 'maxBufferSize', Math.floor(most / this.layout.bytes)];
      throw new RangeError(
        `"count" expected at most ${fits} pages of ${this.layout.bytes} bytes (a capacity of ${fits * layout.blockSize} tokens): a layer lies in one buffer, and this device's ${limit} is ${most}; got ${count}`,
      );
    }
    this.marks = new SlotMarks(count * layout.blockSize);
    const { device } = backend;
    this.groups = new BindGroups(device);
    device.pushErrorScope('out-of-memory');
    const buffer = device.createBuffer({ label: 'fp8-kv pages', size: this.byteLength, usage: usage.storage | usage.copySrc | usage.copyDst });
    this.#region = { buffer, offset: 0, size: this.byteLength };
    const noMemory = (error: GPUError | null): void => {
      if (error) this.#failure = new RangeError(`"count" expected fewer pages: the device has no memory for ${this.byteLength} bytes (${error.message})`);
    };
    // A device that is lost says so by itself.
    device.popErrorScope().then(noMemory, () => {});
  }

  /**
   * The buffer itself, laid out as `layout` says: for engines that read pages with kernels of their own.
   * @throws TypeError once the pages are disposed of; RangeError where the device had no memory for them, which it says a
   * moment after they were created
   */
  get buffer(): GPUBuffer {
    this.#assertUsable();
    return this.#region.buffer;
  }

  #assertUsable(): void {
    if (this.#failure) throw this.#failure;
    if (this.#disposed) throw new TypeError('"pages" expected to be in use, got pages that were disposed of');
  }

  /** @internal all of them, to be bound */
  get region(): Region {
    this.#assertUsable();
    return this.#region;
  }

  copyPages(from: ArrayLike<number>, to: ArrayLike<number>): void {
    checkPageCopies(from, to, this.count);
    if (from.length === 0) return;
    const { buffer, layout, backend } = this;
    const [sources, targets] = [Int32Array.from(from), Int32Array.from(to)];
    backend.later((gpu) => {
      const encoder = gpu.device.createCommandEncoder({ label: 'fp8-kv copy pages' });
      // A buffer cannot be copied into itself.
      const between = gpu.scratch.page.reserve(layout.bytes, layout.bytes);
      for (const [i, source] of sources.entries()) {
        encoder.copyBufferToBuffer(buffer, source * layout.bytes, between.buffer, 0, layout.bytes);
        encoder.copyBufferToBuffer(between.buffer, 0, buffer, targets[i] * layout.bytes, layout.bytes);
      }
      gpu.device.queue.submit([encoder.finish()]);
    });
  }

  async import(tensors: CacheTensors, firstPage = 0): Promise<void> {
    const checked = checkTensors(this.layout, tensors, firstPage, this.count);
    const bytes = new Uint8Array(checked.pages * this.layout.bytes);
    packPages(this.layout, checked, bytes);
    const { buffer } = this;
    return this.backend.run((gpu) => gpu.checked(() => gpu.device.queue.writeBuffer(buffer, firstPage * this.layout.bytes, bytes)));
  }

  async export(firstPage = 0, count = this.count - firstPage): Promise<NhdTensors> {
    checkInteger(firstPage, 'firstPage', 0, this.count);
    checkInteger(count, 'count', 0, this.count - firstPage);
    const made = newTensors(this.layout, count);
    await this.#read(made, firstPage);
    return made.tensors;
  }

  async exportInto(tensors: CacheTensors, firstPage = 0): Promise<void> {
    await this.#read(checkTargets(this.layout, tensors, firstPage, this.count), firstPage);
  }

  async #read(checked: CheckedTensors, firstPage: number): Promise<void> {
    const { buffer, layout } = this;
    const size = checked.pages * layout.bytes;
    if (size === 0) return;
    const record = (encoder: GPUCommandEncoder, results: GPUBuffer): void => encoder.copyBufferToBuffer(buffer, firstPage * layout.bytes, results, 0, size);
    return this.backend.run((gpu) => gpu.readBack('export', size, record, (bytes) => unpackPages(layout, checked, new Uint8Array(bytes))));
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#onDispose();
    // What was called before still finds it.
    this.backend.finally(() => {
      this.#region.buffer.destroy();
      this.groups.clear();
    });
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
