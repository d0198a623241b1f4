/** What a sequence's tokens are, as far as its steps said so, and the keys of its full pages. */
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex, hexToBytes, utf8ToBytes } from '@noble/hashes/utils.js';

/** Token ids, where they are known. */
export type TokenIds = ArrayLike<number>;

/**
 * Names pages by what they hold. The key of a page is a hash of the key of the page before and of its own tokens' ids, and so of all tokens
 * up to its last; the first page's begins with a hash of what else its contents depend on: the model and the cache's options.
 */
export class KeyChain {
  /** 64 hexadecimal digits: chains of the same name the same pages alike. */
  readonly root: string;

  /** @param origin all that the contents of pages depend on beside the tokens */
  constructor(
    origin: string,
    readonly blockSize: number,
  ) {
    this.root = bytesToHex(sha256(utf8ToBytes(origin)));
  }

  /** SHA-256 of the key before and the ids as little-endian u32, in hexadecimal. */
  next(before: string | undefined, ids: TokenIds, first: number): string {
    const bytes = new Uint8Array(32 + 4 * this.blockSize);
    bytes.set(hexToBytes(before ?? this.root));
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < this.blockSize; i++) view.setUint32(32 + 4 * i, ids[first + i], true);
    return bytesToHex(sha256(bytes));
  }

  /** Adds the keys of pages that have none yet, up to `pages` of them. */
  extend(keys: string[], ids: TokenIds, pages = Math.floor(ids.length / this.blockSize)): void {
    for (let page = keys.length; page < pages; page++) keys.push(this.next(keys.at(-1), ids, page * this.blockSize));
  }

  /** The keys of the full pages of these tokens, at most `pages` of them. */
  keys(ids: TokenIds, pages?: number): string[] {
    const keys: string[] = [];
    this.extend(keys, ids, pages);
    return keys;
  }
}

export class TokenLog {
  readonly #ids: number[] = [];
  readonly #keys: string[] = [];

  /**
   * @param chain absent: nothing is remembered, and no page has a key
   * @param keys of the first pages, of whose tokens nothing else is known: what comes behind them has none
   */
  constructor(
    private readonly chain?: KeyChain,
    keys: readonly string[] = [],
  ) {
    // A push of all at once would be limited by the stack.
    for (const key of keys) this.#keys.push(key);
  }

  /** The keys of the full pages whose tokens are known, in order. */
  get keys(): readonly string[] {
    return this.#keys;
  }

  /** @internal the ids from the first token on, as far as they are known without a gap */
  get ids(): TokenIds {
    return this.#ids;
  }

  /**
   * Tokens that come behind the first `length`.
   * @param ids absent: they are not known, and with them none that comes later
   * @returns the number of the first page that has a key now and had none before
   */
  extend(length: number, ids: TokenIds | undefined): number {
    const before = this.#keys.length;
    if (this.chain === undefined || ids === undefined || this.#ids.length < length) return before;
    for (let i = 0; i < ids.length; i++) this.#ids.push(ids[i]);
    this.chain.extend(this.#keys, this.#ids);
    return before;
  }

  truncate(length: number): void {
    if (this.chain === undefined) return;
    this.#ids.length = Math.min(this.#ids.length, length);
    this.#keys.length = Math.min(this.#keys.length, Math.floor(length / this.chain.blockSize));
  }

  copy(): TokenLog {
    const copy = new TokenLog(this.chain, this.#keys);
    for (const id of this.#ids) copy.#ids.push(id);
    return copy;
  }
}
