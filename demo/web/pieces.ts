import type { Tokenizer } from '../../src/model/tokenizer.js';

/** What a decoder writes for the beginning of a character. */
const UNFINISHED = '\ufffd';

/** A growing text, token by token. */
export class Pieces {
  readonly #tokenizer: Tokenizer;
  readonly #ids: number[];
  #shown = '';

  constructor(tokenizer: Tokenizer, ids: readonly number[] = []) {
    this.#tokenizer = tokenizer;
    this.#ids = [...ids];
    this.#shown = tokenizer.decode(this.#ids);
  }

  /** What a token adds: nothing where it is special, or begins a character that a later one ends. */
  add(id: number): string {
    this.#ids.push(id);
    const text = this.#tokenizer.decode(this.#ids);
    if (text.endsWith(UNFINISHED)) return '';
    const piece = text.slice(this.#shown.length);
    this.#shown = text;
    return piece;
  }

  copy(): Pieces {
    return new Pieces(this.#tokenizer, this.#ids);
  }
}
