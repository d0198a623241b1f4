/** What a reader that is fuzzed has. */
import type { Sample } from './mutate.js';

export interface Reader {
  /** Valid files. */
  readonly samples: readonly Sample[];
  /** Reads a file; what comes back is compared with what a second reading gives. */
  read(bytes: Uint8Array): unknown;
  /** Plain errors that it may throw, beside the named ones. */
  readonly plain?: RegExp;
}

export type Readers = { readonly [name: string]: Reader };
