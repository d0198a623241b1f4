import { checkInteger } from '../layout.js';
import type { KvCache } from './cache.js';
import { holdsNothing, type Held } from './groups.js';
import { TokenLog } from './token-log.js';

let made = 0;

/** @internal what a sequence is: never changed, only replaced */
export interface SequenceState {
  readonly length: number;
  /** By number of the cache's groups of layers. */
  readonly held: readonly Held[];
  /** Whether the residual is to be quantized with the next step, see residual.ts. */
  readonly due: boolean;
}

/** One sequence of tokens in a cache. Made by `cache.createSequence()`. */
export class Sequence {
  /** @internal tells it apart from all others */
  readonly id = made++;
  /** @internal */
  readonly tokens: TokenLog;
  #held: SequenceState;
  #state: 'idle' | 'in a step' | 'freed' = 'idle';

  /** @internal use `cache.createSequence` */
  constructor(
    /** @internal */
    readonly cache: KvCache,
    state: SequenceState = { length: 0, held: cache.groups.map(() => holdsNothing), due: false },
    tokens = new TokenLog(cache.keyChain),
  ) {
    this.#held = state;
    this.tokens = tokens;
    cache.live.add(this);
  }

  /** Committed tokens. */
  get length(): number {
    return this.#held.length;
  }

  /**
   * Its pages, in order, in the first layer, and in all that keep the same tokens: block i holds tokens i · blockSize … Where
   * that layer keeps a ring, the pages come round again.
   */
  get blocks(): readonly number[] {
    return this.#held.held[0].pages;
  }

  /** @internal */
  get state(): SequenceState {
    return this.#held;
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
  become(state: SequenceState): void {
    this.#held = state;
  }

  /** @internal the step ends, and leaves the sequence in this state */
  leaveStep(state: SequenceState): void {
    this.#state = 'idle';
    this.become(state);
  }

  /**
   * A second sequence with the same tokens. Pages are shared until one of the two writes into them.
   * @throws Error while the sequence is in a step, or after `free()`
   */
  fork(): Sequence {
    this.assertIdle();
    for (const [g, group] of this.cache.groups.entries()) group.share(this.#held.held[g]);
    return new Sequence(this.cache, this.#held, this.tokens.copy());
  }

  /**
   * Forgets all tokens from `length` on and gives back the pages that held no others.
   *
   * Layers that keep a ring have overwritten old tokens: a sequence that was longer than a ring's capacity can be cut by
   * capacity − window tokens at most, counted from the longest that it was (steps that were aborted after an append count, too),
   * and to no length that would need what is gone.
   * @throws RangeError for more than there are, or less than can be; Error while the sequence is in a step, or after `free()`.
   * Nothing is changed then
   */
  truncate(length: number): void {
    this.assertIdle();
    checkInteger(length, 'length', 0, this.length);
    if (length === this.length) return;
    const { groups } = this.cache;
    const shortest = Math.max(...groups.map((group, g) => group.shortest(this.#held.held[g])));
    if (length < shortest) throw new RangeError(`"length" expected at least ${shortest}, as what rows there would see before is no longer kept, got ${length}`);
    this.#cut(length);
  }

  #cut(length: number): void {
    const held = this.cache.groups.map((group, g) => group.truncate(this.#held.held[g], length));
    const due = this.#held.due && held.some(({ floor, end }, g) => this.cache.groups[g].kind === 'residual' && floor < end);
    this.#held = { length, held, due };
    this.tokens.truncate(length);
  }

  /** Gives back all pages. The sequence is of no use afterwards; freeing it again does nothing. */
  free(): void {
    if (this.#state === 'freed') return;
    this.assertIdle();
    for (const [g, group] of this.cache.groups.entries()) group.release(this.#held.held[g]);
    this.#held = { length: 0, held: this.#held.held.map(() => holdsNothing), due: false };
    this.tokens.truncate(0);
    this.#state = 'freed';
    this.cache.live.delete(this);
  }

  /** As {@link free}, for `using`. */
  [Symbol.dispose](): void {
    this.free();
  }
}
