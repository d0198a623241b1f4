/**
 * One page of all layers as one value, for stores that keep pages by key.
 *
 * ```
 * magic     8 bytes   "FP8KVPG" and the version, 1
 * checksum  32 bytes  SHA-256 of all that follows
 * key       32 bytes  the key's 64 hex digits
 * layers              each one's K codes, V codes, K scales, V scales, as rows (token, kvHead, dim or group)
 * ```
 *
 * All is little endian, and nothing is padded. A layer that is given its scales has none here. The key names configuration,
 * model and tokens, so no shapes are written down: whoever reads knows them, and of other shapes the length is another.
 */
import { bytesToHex, hexToBytes } from '@noble/hashes/utils.js';
import type { NhdTensors } from '../backend.js';
import { digest } from '../digest.js';
import { FormatError } from '../errors.js';
import { bytesOf, describe } from '../formats.js';
import type { PageLayout } from '../layout.js';
import { newTensors } from '../tensors.js';

const MAGIC = new TextEncoder().encode('FP8KVPG\u0001');
const CHECKSUM = 8;
const KEY = 40;
const DATA = 72;

/** What errors call the value. */
const NAME = 'page value';

/** A layer's bytes, in place, in the order in which they are written. */
function partsOf({ keyCache, valueCache, keyScale, valueScale }: NhdTensors): Uint8Array[] {
  return [keyCache, valueCache, keyScale, valueScale].filter((part) => part !== undefined).map(bytesOf);
}

const lengthOf = (parts: readonly Uint8Array[]): number => parts.reduce((sum, { length }) => sum + length, DATA);

/**
 * @param key 64 hex digits, in lower case
 * @param tensors of each layer, of this one page
 * @throws RangeError for another kind of key
 */
export async function encodePage(key: string, tensors: readonly NhdTensors[]): Promise<Uint8Array> {
  if (!/^[\da-f]{64}$/.test(key)) throw new RangeError(`"key" expected 64 hex digits, got ${describe(key)}`);
  const parts = tensors.flatMap(partsOf);
  const value = new Uint8Array(lengthOf(parts));
  value.set(MAGIC);
  value.set(hexToBytes(key), KEY);
  let at = DATA;
  for (const part of parts) {
    value.set(part, at);
    at += part.length;
  }
  value.set(await digest(value.subarray(KEY)), CHECKSUM);
  return value;
}

/** The value's bytes: what a store gives may be of any kind. */
function readBytes(value: Uint8Array | ArrayBuffer): Uint8Array {
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (ArrayBuffer.isView(value)) return bytesOf(value);
  throw new FormatError(NAME, 0, `expected a Uint8Array or an ArrayBuffer, got ${describe(value)}`);
}

function checkStart(bytes: Uint8Array, length: number): void {
  if (!MAGIC.every((byte, i) => bytes[i] === byte)) throw new FormatError(NAME, 0, 'it does not begin as a page of this version does');
  if (bytes.length !== length) throw new FormatError(NAME, Math.min(bytes.length, length), `expected ${length} bytes for these layers, got ${bytes.length}`);
}

/**
 * The tensors of each layer, in arrays of their own. Checks, in this order: how the value begins, its length, its checksum, its
 * key.
 * @param layouts of each layer's pages
 * @throws FormatError for whatever is not the page that `encodePage` wrote under this key
 */
export async function decodePage(value: Uint8Array | ArrayBuffer, key: string, layouts: readonly PageLayout[]): Promise<NhdTensors[]> {
  const bytes = readBytes(value);
  const tensors = layouts.map((layout): NhdTensors => newTensors(layout, 1).tensors);
  const parts = tensors.flatMap(partsOf);
  checkStart(bytes, lengthOf(parts));
  // All is read before the first wait: what the memory of others holds later is not what was checked.
  const checksum = digest(bytes.subarray(KEY));
  const [expected, found] = [bytesToHex(bytes.subarray(CHECKSUM, KEY)), bytesToHex(bytes.subarray(KEY, DATA))];
  let at = DATA;
  for (const part of parts) {
    part.set(bytes.subarray(at, at + part.length));
    at += part.length;
  }
  if (bytesToHex(await checksum) !== expected) throw new FormatError(NAME, CHECKSUM, 'the checksum is not that of what follows');
  if (found !== key) throw new FormatError(NAME, KEY, `expected the page ${key}, got ${found}`);
  return tensors;
}
