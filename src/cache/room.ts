/** How many tokens a cache has room for, and in which pages. */
import { describe } from '../formats.js';
import { checkInteger, MAX_BLOCK_SIZE, MAX_CONTEXT } from '../layout.js';

export interface RoomOptions {
  /**
   * `paged` (default): sequences take pages of `blockSize` tokens as they grow. `contiguous`: each has one run of `capacity`
   * slots from its first token on, as in caches without a page table: a page of that size. A fork shares it until one of the
   * two writes, and then needs one of its own.
   */
  readonly layout?: 'paged' | 'contiguous';
  /** Tokens per page. Default 16. A contiguous cache has none to state. */
  readonly blockSize?: number;
  /** Tokens of all sequences together, rounded up to whole pages; in a contiguous cache, of each sequence, at most 2^20. */
  readonly capacity: number;
  /**
   * How many sequences have tokens at a time, at most. Default 1. Where each has room of its own: in a contiguous cache, in
   * rings (`slidingWindow`), in residuals.
   */
  readonly sequences?: number;
  /** Tokens of one sequence, at most: with `slidingWindow`, of which a ring never is larger. Default `capacity`. */
  readonly context?: number;
  /** New tokens of one sequence in one step, at most: what rings, and residuals of Hugging Face's rule, have room for. Needed with these. */
  readonly chunk?: number;
}

/** A slot is an int32. */
const MAX_SLOTS = 2 ** 31 - 1;

/** How tokens are laid out, checked. */
export interface Room {
  readonly contiguous: boolean;
  readonly blockSize: number;
  readonly pageCount: number;
  readonly sequences: number;
  /** Tokens of a sequence, and new ones in a step, at most. */
  readonly context: number;
  readonly chunk: number | undefined;
}

type Space = Pick<Room, 'contiguous' | 'blockSize' | 'pageCount'>;

function contiguousSpace({ capacity, blockSize }: RoomOptions, sequences: number): Space {
  if (blockSize !== undefined) throw new TypeError(`"blockSize" expected to be absent with layout contiguous, where "capacity" says how long a sequence may be, got ${describe(blockSize)}`);
  checkInteger(capacity, 'capacity', 1, MAX_BLOCK_SIZE);
  return { contiguous: true, blockSize: capacity, pageCount: checkInteger(sequences, 'sequences', 1, Math.floor(MAX_SLOTS / capacity)) };
}

function pagedSpace({ capacity, blockSize = 16 }: RoomOptions): Space {
  checkInteger(blockSize, 'blockSize', 1, 65536);
  const most = MAX_SLOTS - (MAX_SLOTS % blockSize);
  return { contiguous: false, blockSize, pageCount: Math.ceil(checkInteger(capacity, 'capacity', 1, most) / blockSize) };
}

/** @throws TypeError or RangeError naming the option that does not fit */
export function resolveRoom(options: RoomOptions): Room {
  const { layout = 'paged', sequences = 1 } = options;
  if (layout !== 'paged' && layout !== 'contiguous') throw new TypeError(`"layout" expected paged or contiguous, got ${describe(layout)}`);
  checkInteger(sequences, 'sequences', 1, MAX_SLOTS);
  const space = layout === 'contiguous' ? contiguousSpace(options, sequences) : pagedSpace(options);
  const most = layout === 'contiguous' ? options.capacity : MAX_CONTEXT;
  const context = checkInteger(options.context ?? Math.min(options.capacity, MAX_CONTEXT), 'context', 1, most);
  const chunk = options.chunk === undefined ? undefined : checkInteger(options.chunk, 'chunk', 1, MAX_SLOTS);
  return { ...space, sequences, context, chunk };
}

/** Tokens of a sequence that a layer keeps beside the first sinkTokens: a step's, and all that the first of them sees. */
export const ringCapacity = (window: number, sinkTokens: number, { context }: Room, chunk: number): number => Math.min(context - sinkTokens, window + chunk - 1);
