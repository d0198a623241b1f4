import { DeviceLostError } from '../errors.js';

/** How long the loss may take to be known once it has shown: a GPU process that compiles shaders says nothing until it is done. */
const PATIENCE_MS = 10_000;

/** Whether a device is lost, for calls to come and for those on their way. */
export class Loss {
  readonly #device: GPUDevice;
  readonly #underWay = new Set<(error: Error) => void>();
  #info: GPUDeviceLostInfo | undefined;

  constructor(device: GPUDevice) {
    this.#device = device;
    void device.lost.then((info) => {
      this.#info = info;
      for (const reject of this.#underWay) reject(this.error!);
    });
  }

  /** A new one each time, for its stack; undefined unless the device is known to be lost. */
  get error(): DeviceLostError | undefined {
    return this.#info && new DeviceLostError(this.#info.reason, this.#info.message);
  }

  /**
   * What the promise gives, or the loss: in Chromium, a mapping that is asked for after `device.destroy()` never settles
   * where shaders are being compiled. Not a race with `device.lost`, which would keep something of each call until then.
   */
  guard<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#info) reject(this.error!);
      this.#underWay.add(reject);
      void promise.then(resolve, reject).then(() => this.#underWay.delete(reject));
    });
  }

  /** The loss, where that is what an error of the device comes from; else the error. */
  async explain(error: unknown): Promise<unknown> {
    // A buffer that nobody has unmapped or destroyed: it is the device that is lost, and will be known to be.
    if (!this.#info && error instanceof Error && error.name === 'AbortError') {
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([this.#device.lost, new Promise((resolve) => (timer = setTimeout(resolve, PATIENCE_MS)))]);
      clearTimeout(timer);
    }
    return this.error ?? error;
  }
}
