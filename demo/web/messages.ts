/** What the page and its worker say to each other. One job at a time: the page asks for the next when the last is over. */
import type { BackendChoice } from '../../src/index.js';
import type { LlamaConfig } from '../../src/model/config.js';
import type { CompareEvent, Pair } from './compare.js';

/** Which backend a visitor wants: `auto` is the fastest. */
export type Preference = 'auto' | 'webgpu' | 'wasm';

/** A folder as a page gets it: the files in it, without those of folders below. */
export interface Folder {
  readonly name: string;
  readonly files: readonly File[];
}

export interface RunRequest {
  readonly preference: Preference;
  /** Names of variants, see caches.ts. */
  readonly caches: Pair<string>;
  readonly prompt: string;
  readonly tokens: number;
}

export type ToWorker =
  /** Without a folder, the model that comes with the page. */
  | { readonly type: 'load'; readonly folder?: Folder }
  | ({ readonly type: 'run' } & RunRequest)
  | { readonly type: 'cancel' };

export interface Loaded {
  readonly type: 'loaded';
  readonly name: string;
  readonly config: LlamaConfig;
  /** Of all files that were read. */
  readonly bytes: number;
  readonly milliseconds: number;
}

/** How far a job is. */
export interface Progress {
  readonly type: 'progress';
  readonly task: 'reading' | 'calibrating';
  /** Bytes, or tokens. */
  readonly done: number;
  /** 0 where nobody knows. */
  readonly total: number;
}

/** How a job ends. What was there before stays where it is cancelled or fails. */
export type Ended = { readonly type: 'done' } | { readonly type: 'cancelled' } | { readonly type: 'failed'; readonly message: string };

export type ToPage = Loaded | Progress | ({ readonly type: 'backend' } & BackendChoice) | CompareEvent | Ended;
