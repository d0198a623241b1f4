/** What a reader may make of a file: something, twice the same, or a named error; in little memory. */
import { isDeepStrictEqual } from 'node:util';
import { FormatError, OutOfPagesError } from '../../src/index.js';
import type { Reader } from './reader.js';

/** A file has at most 64 KiB: this is for what is made of it, twice. */
const MOST_MEMORY = 2 ** 26;

/** Why an error is none that a reader may throw. */
function unnamed(error: unknown, { plain }: Reader, bytes: Uint8Array): string | undefined {
  if (!(error instanceof Error)) return `threw ${String(error)}`;
  const { message } = error;
  if (message.length >= 1000 || message.includes('\n')) return `threw a message of ${message.length} characters, or of several lines`;
  if (error instanceof FormatError) return error.offset >= 0 && error.offset <= bytes.length ? undefined : `named byte ${error.offset} of ${bytes.length}`;
  if (error instanceof OutOfPagesError) return undefined;
  const known = error instanceof TypeError || error instanceof RangeError ? /^"[^"].*" expected .*/.test(message) : error.constructor === Error && plain?.test(message);
  return known ? undefined : `threw ${error.stack}`;
}

async function readOnce(reader: Reader, bytes: Uint8Array): Promise<{ result?: unknown; error?: unknown }> {
  try {
    return { result: await reader.read(bytes) };
  } catch (error) {
    return { error };
  }
}

/** @returns what is wrong with how a reader takes a file */
export async function faultOf(reader: Reader, bytes: Uint8Array): Promise<string | undefined> {
  const before = process.memoryUsage();
  const given = bytes.slice();
  const first = await readOnce(reader, bytes);
  const after = process.memoryUsage();
  const grown = after.arrayBuffers - before.arrayBuffers + Math.max(0, after.heapUsed - before.heapUsed);
  if (grown > MOST_MEMORY) return `took ${grown} bytes of memory`;
  if (first.error !== undefined) return unnamed(first.error, reader, bytes);
  if (!isDeepStrictEqual(bytes, given)) return 'changed the file';
  const second = await readOnce(reader, bytes);
  if (!isDeepStrictEqual(second, first)) return 'read the file in another way when it read it again';
  return undefined;
}
