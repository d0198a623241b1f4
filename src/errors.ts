/** The named errors. Everything else is a TypeError or RangeError that says `"name" expected X, got Y`. */

/** A step needs more pages than are free. Nothing was reserved or written. */
export class OutOfPagesError extends Error {
  /** Tells it apart where classes do not, as between realms. */
  override readonly name = 'OutOfPagesError';
  constructor(
    /** Pages that the call would have taken. */
    readonly need: number,
    /** Pages that were free: to a sequence of a contiguous cache, which has one at most, none but that. */
    readonly have: number,
    remedy = 'free or truncate sequences',
    what = 'the step',
    more = 'a larger capacity',
  ) {
    super(`${what} needs ${need} pages, ${have} are free: ${remedy}, or give the cache ${more}`);
  }
}

/** A file breaks its format. `offset` is the byte at which that shows. */
export class FormatError extends Error {
  /** Tells it apart where classes do not, as between realms. */
  override readonly name = 'FormatError';
  constructor(
    /** What the file is called: its name, or that of the place it came from. */
    readonly file: string,
    /** In bytes, from the file's first. */
    readonly offset: number,
    reason: string,
  ) {
    super(`${file}, byte ${offset}: ${reason}`);
  }
}

/**
 * A worker ended while a call was on its way. `out` and `lse` of the call may be there in part; pages are as they were, and
 * the next call starts new workers. `cause` is why it ended.
 */
export class WorkerLostError extends Error {
  /** Tells it apart where classes do not, as between realms. */
  override readonly name = 'WorkerLostError';
  constructor(options: { readonly cause: unknown }) {
    super(`a worker ended while a call was computed (${options.cause instanceof Error ? options.cause.message : String(options.cause)}): the next call starts new ones`, options);
  }
}

/** A limit or feature that a GPU device lacks. */
export interface Unmet {
  /** WebGPU's name of the limit or feature. */
  readonly name: string;
  /** What is asked for. */
  readonly need: number | 'present';
  /** What the device has. */
  readonly have: number | 'absent';
}

/** A GPU device cannot do what is asked of it. */
export class UnsupportedDeviceError extends Error {
  /** Tells it apart where classes do not, as between realms. */
  override readonly name = 'UnsupportedDeviceError';
  constructor(
    /** All that is missing. */
    readonly unmet: readonly Unmet[],
  ) {
    super(`the GPU device lacks ${unmet.map(({ name, need, have }) => `${name} (need ${need}, have ${have})`).join(', ')}`);
  }
}

/**
 * The GPU device is lost, and with it what its pages held. Page tables and sequences are as they were:
 * `cache.restore(backend, checkpoint)` goes on from the last checkpoint on another backend.
 */
export class DeviceLostError extends Error {
  /** Tells it apart where classes do not, as between realms. */
  override readonly name = 'DeviceLostError';
  constructor(
    /** `destroyed` or `unknown`, as WebGPU says. */
    readonly reason: string,
    detail: string,
  ) {
    super(`the GPU device was lost (${reason}${detail ? `: ${detail}` : ''}): the keys and values in its pages are gone`);
  }
}

/** What was thrown, in one line: drivers explain themselves in many. */
export const inOneLine = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split('\n', 1)[0];
