/** JSON of any form, as checkpoints bring it: what nests too deep, holds too much, or says a key twice, is refused at its byte. */
import { FormatError } from '../errors.js';
import { JsonScanner } from '../files/json.js';

/** Objects are maps: a key of `__proto__` is a key. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export type JsonObject = ReadonlyMap<string, JsonValue>;

/** No configuration of a model comes near. */
const MAX_DEPTH = 64;

/** Indices of the largest models have some 300,000. Maps without number would fill the memory, at 50 times their bytes. */
const MAX_VALUES = 2 ** 20;

/** What Python writes beside JSON's own numbers: `time_step_limit` of Mamba models is [0.0, Infinity]. */
const literals: readonly (readonly [text: string, value: JsonValue])[] = [
  ['null', null],
  ['true', true],
  ['false', false],
  ['NaN', NaN],
  ['Infinity', Infinity],
  ['-Infinity', -Infinity],
];

export const isObject = (value: JsonValue | undefined): value is JsonObject => value instanceof Map;

/**
 * A file whose value is an object.
 * @throws FormatError with the byte at which it is not JSON, or not an object
 */
export function parseJson(bytes: Uint8Array, file: string): JsonObject {
  return new JsonReader(bytes, file).read();
}

class JsonReader extends JsonScanner {
  private values = 0;

  constructor(
    bytes: Uint8Array,
    private readonly file: string,
  ) {
    super(bytes, 0, bytes.length);
  }

  read(): JsonObject {
    // A byte order mark, which editors of Windows leave.
    if (this.bytes[0] === 0xef && this.bytes[1] === 0xbb && this.bytes[2] === 0xbf) this.at = 3;
    const at = this.skipSpace();
    const value = this.value(0);
    if (!isObject(value)) throw this.error('the file does not hold an object', at);
    this.finish('the file');
    return value;
  }

  private value(depth: number): JsonValue {
    const at = this.skipSpace();
    if (depth > MAX_DEPTH) throw this.error(`values nest over ${MAX_DEPTH} deep`, at);
    if (++this.values > MAX_VALUES) throw this.error(`there are over ${MAX_VALUES} values`, at);
    if (at === this.end) throw this.error('the file ends where a value is expected', at);
    const first = String.fromCharCode(this.bytes[at]);
    if (first === '{') return this.members(depth);
    if (first === '[') return this.array('a value', () => this.value(depth + 1));
    if (first === '"') return this.string('a value');
    const literal = literals.find(([text]) => this.comesNext(text));
    if (literal === undefined) return this.number('a value');
    this.at += literal[0].length;
    return literal[1];
  }

  private members(depth: number): JsonObject {
    const members = new Map<string, JsonValue>();
    this.object((key) => members.set(key, this.value(depth + 1)));
    return members;
  }

  private comesNext(text: string): boolean {
    for (let i = 0; i < text.length; i++) if (this.bytes[this.at + i] !== text.charCodeAt(i)) return false;
    return true;
  }

  protected override error(reason: string, at = this.at): FormatError {
    return new FormatError(this.file, at, reason);
  }
}
