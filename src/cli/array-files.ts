/** Arrays that a command is given as files: .npy, or one array of a .npz or .safetensors file. */
import { extname } from 'node:path';
import { inflateRawSync } from 'node:zlib';
import { parseNpy } from '../files/npy.js';
import { parseNpz } from '../files/npz.js';
import { parseSafetensors } from '../files/safetensors.js';
import type { Tensor } from '../files/tensor.js';
import { readBytes, UsageError } from './command.js';

/** A tensor of a file that holds many, or the only one there is. */
function pick<T>(tensors: ReadonlyMap<string, T>, file: string, name: string | undefined): T {
  const names = [...tensors.keys()];
  if (name === undefined && names.length === 1) return tensors.get(names[0])!;
  const found = name === undefined ? undefined : tensors.get(name);
  if (found === undefined) throw new UsageError(`${file}: expected ${file}#NAME, with one of ${names.slice(0, 20).join(', ') || 'no tensors at all'}`);
  return found;
}

export const ARRAY_FILES = 'FILE is a .npy file, or FILE.npz#NAME or FILE.safetensors#NAME.';

const inflate = (deflated: Uint8Array, limit: number): Uint8Array => inflateRawSync(deflated, { maxOutputLength: Math.max(1, limit) });

/**
 * The array that `FILE` or `FILE#NAME` stands for.
 * @throws UsageError for another kind of file, or a name that it does not have; FormatError where the file breaks its format
 */
export function readArray(argument: string): Tensor {
  const cut = argument.lastIndexOf('#');
  const [file, name] = cut < 0 ? [argument, undefined] : [argument.slice(0, cut), argument.slice(cut + 1)];
  const kind = extname(file);
  if (kind === '.npy' && name === undefined) return parseNpy(readBytes(file), file);
  if (kind === '.safetensors') return pick(parseSafetensors(readBytes(file), file).tensors, file, name);
  if (kind === '.npz') return parseNpy(pick(parseNpz(readBytes(file), file, inflate), file, name), argument);
  throw new UsageError(`${argument}: expected a .npy file, FILE.npz#NAME or FILE.safetensors#NAME`);
}
