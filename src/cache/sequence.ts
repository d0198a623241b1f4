import { checkInteger } from '../layout.js';
import type { KvCache } from './cache.js';

let made = 0;

/** One sequence of tokens in a cache. Made by `cache.createSequence()`. */
export class Sequence {
  /** @internal tells it apart from all others */
  readonly id = made++;
  #length = 0;
  #blocks: readonly number[] = [];
  #state: 'idle' | 'in a step' | 'freed' = 'idle';

  /** @internal use `cache.createSequence` */
  constructor(
    /** @internal */
    readonly cache: KvCache,
    length = 0,
    blocks: readonly number[] = [],
  ) {
    this.#length = length;
    this.#blocks = blocks;
    cache.live.add(this);
  }

  /** Committed tokens. */
  get length(): number {
    return this.#length;
  }

  /** Its pages, in order: block i holds tokens i · blockSize … The same pages in every layer. */
  get blocks(): readonly number[] {
    return this.#blocks;
  }

  /** @internal */
  get isInStep(): boolean {
    return this.#state === 'in a step';
  }

  /** @internal */
  assertIdle(): void {
    if (this.#state !== 'idle') throw new Error(`the sequence expected to be idle, got one that is ${this.#state}`);
  }

  /** @internal a step takes hold of the sequence */
  enterStep(): void {
    this.#state = 'in a step';
  }

  /** @internal the sequence, which is idle, becomes what it was; who owns which page is the caller's to say */
  become(length: number, blocks: readonly number[]): void {
    this.#length = length;
    this.#blocks = blocks;
  }

  /** @internal the step ends; with `length` and `blocks` where it was committed */
  leaveStep(length = this.#length, blocks = this.#blocks): void {
    this.#state = 'idle';
    this.become(length, blocks);
  }

  /**
   * A second sequence with the same tokens. Pages are shared until one of the two writes into them.
   * @throws Error while the sequence is in a step, or after `free()`
   */
  fork(): Sequence {
    this.assertIdle();
    for (const page of this.#blocks) this.cache.pool.share(page);
    return new Sequence(this.cache, this.#length, this.#blocks);
  }

  /**
   * Forgets all tokens from `length` on and gives back the pages that held no others.
   * @throws RangeError for more than there are; Error while the sequence is in a step, or after `free()`
   */
  truncate(length: number): void {
    this.assertIdle();
    checkInteger(length, 'length', 0, this.#length);
    const kept = Math.ceil(length / this.cache.blockSize);
    for (const page of this.#blocks.slice(kept)) this.cache.pool.release(page);
    this.#blocks = this.#blocks.slice(0, kept);
    this.#length = length;
  }

  /** Gives back all pages. The sequence is of no use afterwards; freeing it again does nothing. */
  free(): void {
    if (this.#state === 'freed') return;
    this.truncate(0);
    this.#state = 'freed';
    this.cache.live.delete(this);
  }

  [Symbol.dispose](): void {
    this.free();
  }
}
