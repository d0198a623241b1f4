/**
 * JSON of a known form, read byte by byte, so that an error knows its place. `JSON.parse` would keep the last of two equal keys
 * without a word, round large integers, and build whatever a hostile file nests before anyone could look at it.
 */

import { quote } from './tensor.js';

/** Reads one value from front to back; who extends it asks for what may come next, and whatever else comes is an error. */
export abstract class JsonScanner {
  private readonly utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  /** @param at where to begin */
  constructor(
    protected readonly bytes: Uint8Array,
    protected at: number,
    protected readonly end: number,
  ) {}

  /** What to throw for what stands at a byte: by default the next. */
  protected abstract error(reason: string, at?: number): Error;

  /** Nothing but white space may follow. */
  protected finish(what: string): void {
    this.skipSpace();
    if (this.at < this.end) throw this.error(`${what} goes on after its last }`);
  }

  /** An object; `member` is called in front of each value, must read it, and is told where the key stands. */
  protected object(member: (key: string, at: number) => void): void {
    const keys = new Set<string>();
    this.expect('{', '{');
    if (this.take('}')) return;
    do {
      this.skipSpace();
      const at = this.at;
      const key = this.string('a key');
      if (keys.has(key)) throw this.error(`the key ${quote(key)} comes twice`, at);
      keys.add(key);
      this.expect(':', ':');
      member(key, at);
    } while (this.take(','));
    this.expect('}', ', or }');
  }

  protected array<T>(what: string, element: (index: number) => T): T[] {
    const elements: T[] = [];
    if (!this.take('[')) throw this.error(`${what} is not an array`);
    if (this.take(']')) return elements;
    do elements.push(element(elements.length));
    while (this.take(','));
    this.expect(']', ', or ]');
    return elements;
  }

  protected integer(what: string): number {
    this.skipSpace();
    const start = this.at;
    let value = 0;
    while (this.at < this.end && isDigit(this.bytes[this.at])) {
      value = value * 10 + (this.bytes[this.at++] - 0x30);
      if (value > Number.MAX_SAFE_INTEGER) throw this.error(`${what} has a number over 2^53 - 1`, start);
    }
    const leadingZero = this.bytes[start] === 0x30 && this.at > start + 1;
    if (this.at === start || leadingZero || this.continuesNumber()) throw this.error(`${what} holds what is not a non-negative integer`, start);
    return value;
  }

  /** Any number that JSON knows and that is not infinite as a double. */
  protected number(what: string): number {
    const at = this.skipSpace();
    const text = this.word();
    if (!/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text) || !Number.isFinite(Number(text))) throw this.error(`${what} is not a number`, at);
    return Number(text);
  }

  protected boolean(what: string): boolean {
    const at = this.skipSpace();
    const text = this.word();
    if (text !== 'true' && text !== 'false') throw this.error(`${what} is neither true nor false`, at);
    return text === 'true';
  }

  /** What numbers and literals are made of, as far as it goes, or longer than any that is written. */
  private word(): string {
    let text = '';
    while (this.at < this.end && text.length < 40 && isWord(this.bytes[this.at])) text += String.fromCharCode(this.bytes[this.at++]);
    return text;
  }

  private continuesNumber(): boolean {
    return this.at < this.end && '.eE'.includes(String.fromCharCode(this.bytes[this.at]));
  }

  protected string(what: string): string {
    this.skipSpace();
    const start = this.at;
    if (!this.take('"')) throw this.error(`${what} is not a string`);
    while (this.at < this.end && this.bytes[this.at] !== 0x22) this.at += this.bytes[this.at] === 0x5c ? 2 : 1;
    if (this.at >= this.end) throw this.error('a string has no end', start);
    this.at++;
    return this.unescape(this.decode(start), start);
  }

  private decode(start: number): string {
    // A copy, and not by `slice`, because browsers do not decode views onto a SharedArrayBuffer.
    const text = new Uint8Array(this.bytes.subarray(start, this.at));
    try {
      return this.utf8.decode(text);
    } catch {
      throw this.error('a string is not UTF-8', start);
    }
  }

  private unescape(text: string, start: number): string {
    try {
      return JSON.parse(text) as string;
    } catch {
      throw this.error('a string has a bad escape or a control character', start);
    }
  }

  private expect(char: string, wanted: string): void {
    if (!this.take(char)) throw this.error(`this is not JSON of a known form: expected ${wanted}`);
  }

  /** Steps over white space and, if it comes next, over `char`. */
  private take(char: string): boolean {
    this.skipSpace();
    if (this.at === this.end || this.bytes[this.at] !== char.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  /** Steps over white space, and says where it ends. */
  protected skipSpace(): number {
    while (this.at < this.end && isSpace(this.bytes[this.at])) this.at++;
    return this.at;
  }
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function isWord(byte: number): boolean {
  return isDigit(byte) || (byte >= 0x61 && byte <= 0x7a) || byte === 0x45 || byte === 0x2b || byte === 0x2d || byte === 0x2e;
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}
