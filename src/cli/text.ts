/** Text files, as tokens of a model. */
import { readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import type { Text } from '../evaluate/evaluate.js';
import { UsageError } from './command.js';
import type { OpenModel } from './model-run.js';

/** More would take hours: some tokenizers need a minute for a MiB. */
const MOST_BYTES = 2 ** 22;
/** More than a token has on average. */
const BYTES_PER_TOKEN = 8;
/** What follows decides what a token is merged with: so many at the end of a piece of text are not trusted. */
const MARGIN = 64;

/** @throws Error for bytes that are not UTF-8; of a piece that is cut, the character at its end may be left out */
function decodeText(piece: Uint8Array, file: string, isCut: boolean): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(piece, { stream: isCut });
  } catch {
    throw new Error(`${file} expected text in UTF-8, got other bytes`);
  }
}

/** `300 tokens` */
export const tokens = ({ ids }: Text): string => (ids.length === 1 ? '1 token' : `${ids.length} tokens`);

/**
 * The first tokens of a text: no more of it is looked at than they need.
 * @param option what names the file on the command line
 * @param limit tokens, at most
 * @throws UsageError for what is no file; Error for a text without tokens, of too many, or of such that the model does not have
 */
export function readText(file: string, option: string, { tokenizer, directory, runner }: OpenModel, limit = Infinity): Text {
  if (statSync(file, { throwIfNoEntry: false })?.isDirectory() !== false) throw new UsageError(`--${option} expected a text file, got ${file}`);
  const bytes = readFileSync(file);
  for (let size = BYTES_PER_TOKEN * limit + MARGIN; ; size *= 2) {
    const isCut = size < bytes.length;
    const piece = isCut ? bytes.subarray(0, size) : bytes;
    if (piece.length > MOST_BYTES) throw new Error(`${file} expected at most ${MOST_BYTES / 2 ** 20} MiB of text, got ${(bytes.length / 2 ** 20).toFixed(1)} MiB: --limit N takes its first tokens`);
    // The token that begins a sequence is put before each window.
    const [bos, ...ids] = tokenizer.encode(decodeText(piece, file, isCut));
    if (isCut && ids.length < limit + MARGIN) continue;
    if (ids.length === 0) throw new Error(`${file} expected text, got none`);
    const { vocab } = runner.config;
    const unknown = [bos, ...ids].find((id) => !(id >= 0 && id < vocab));
    if (unknown !== undefined) throw new Error(`${directory}: its tokenizer expected tokens below ${vocab}, as the model has them, got ${unknown}`);
    return { name: basename(file), ids: ids.slice(0, limit) };
  }
}
