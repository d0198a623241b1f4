import { DeviceLostError } from '../errors.js';

/** How long the loss may take to be known once it has shown: a GPU process may have shaders to compile first. */
const PATIENCE_MS = 10_000;

/** Whether a device is lost. */
export class Loss {
  readonly #device: GPUDevice;
  #info: GPUDeviceLostInfo | undefined;

  constructor(device: GPUDevice) {
    this.#device = device;
    void device.lost.then((info) => {
      this.#info = info;
    });
  }

  /** A new one each time, for its stack; undefined unless the device is known to be lost. */
  get error(): DeviceLostError | undefined {
    return this.#info && new DeviceLostError(this.#info.reason, this.#info.message);
  }

  /** The loss, where that is what an error comes from; else the error. */
  async explain(error: unknown): Promise<unknown> {
    // No buffer is unmapped or destroyed while it is being mapped: it is the device that has gone, and that will be known.
    if (!this.#info && error instanceof Error && error.name === 'AbortError') {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise((resolve) => {
        timer = setTimeout(resolve, PATIENCE_MS);
      });
      await Promise.race([this.#device.lost, late]);
      clearTimeout(timer);
    }
    return this.error ?? error;
  }
}
