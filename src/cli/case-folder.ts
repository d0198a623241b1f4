/**
 * A case as a folder: a .npy file for each tensor, and `case.json` with what .npy cannot say, { metadata, dtypes }. numpy has no
 * 8-bit floats: their codes are |u1, or |V1 as ml_dtypes' arrays are saved; bf16 is <u2, or <V2.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isObject, parseJson, type JsonValue } from '../checkpoint/json.js';
import { FormatError } from '../errors.js';
import { parseNpy, serializeNpy, type NpyDescr } from '../files/npy.js';
import { parseSafetensors, serializeSafetensors } from '../files/safetensors.js';
import { dtypeBytes, type SafetensorsDtype, type Tensor } from '../files/tensor.js';
import { readBytes, UsageError } from './command.js';
import { checkWritable } from './output.js';

const NOTES = 'case.json';

type Descrs = { readonly [dtype: string]: NpyDescr };
const plain: Descrs = { F32: '<f4', F16: '<f2', BF16: '<u2', I32: '<i4', I8: '|i1', U8: '|u1', F8_E4M3: '|u1', F8_E5M2: '|u1' };
const ofMlDtypes: Descrs = { ...plain, BF16: '<V2', F8_E4M3: '|V1', F8_E5M2: '|V1' };

export const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/** Before work begins that would be lost: @throws UsageError where no folder can be made, or one that holds something would go */
export function checkNewFolder(folder: string): void {
  if (isFolder(folder) ? readdirSync(folder).length > 0 : existsSync(folder)) throw new UsageError(`${folder} expected a new folder, or an empty one, got what is there`);
  if (!isFolder(folder)) checkWritable(folder);
}

/**
 * Writes a case, which was made as a .safetensors file: the folder appears when all of it is written.
 * @returns the names of its files
 */
export function writeCaseFolder(folder: string, bytes: Uint8Array, mlDtypes: boolean): string[] {
  const { tensors, metadata } = parseSafetensors(bytes, folder);
  const descrs = mlDtypes ? ofMlDtypes : plain;
  const part = `${folder}.${process.pid}.part`;
  const dtypes = Object.fromEntries([...tensors].map(([name, { dtype }]) => [name, dtype]));
  try {
    mkdirSync(part);
    for (const [name, { dtype, shape, data }] of tensors) writeFileSync(join(part, `${name}.npy`), serializeNpy(descrs[dtype], shape, data));
    writeFileSync(join(part, NOTES), `${JSON.stringify({ metadata: Object.fromEntries(metadata), dtypes }, undefined, 2)}\n`);
    if (isFolder(folder)) rmSync(folder, { recursive: true });
    renameSync(part, folder);
  } catch (error) {
    rmSync(part, { recursive: true, force: true });
    throw error;
  }
  return readdirSync(folder).sort();
}

/** An object of strings. */
function texts(notes: JsonValue | undefined, key: string, file: string): Map<string, string> {
  const found = isObject(notes) ? notes.get(key) : undefined;
  if (!isObject(found)) throw new FormatError(file, 0, `"${key}" expected an object`);
  for (const [name, value] of found) if (typeof value !== 'string') throw new FormatError(file, 0, `"${key}" expected strings, got another value for ${JSON.stringify(name.slice(0, 80))}`);
  return new Map(found as ReadonlyMap<string, string>);
}

/** Bytes that say nothing of themselves are what the notes say; all else is what the file says. */
function typed(tensor: Tensor, stated: string | undefined): Tensor {
  const opaque = tensor.dtype === 'U8' || tensor.dtype === 'U16';
  if (!opaque || stated === undefined || !Object.hasOwn(dtypeBytes, stated) || dtypeBytes[stated as SafetensorsDtype] !== dtypeBytes[tensor.dtype]) return tensor;
  return { ...tensor, dtype: stated as SafetensorsDtype };
}

/** A case from its folder, as the .safetensors file that it would be. Arrays may have been replaced by what a kernel made. */
export function readCaseFolder(folder: string): Uint8Array {
  const file = join(folder, NOTES);
  if (!existsSync(file)) throw new UsageError(`${folder} expected ${NOTES} in it, as "gen" writes it, got none`);
  const notes = parseJson(readBytes(file), file);
  const [metadata, dtypes] = [texts(notes, 'metadata', file), texts(notes, 'dtypes', file)];
  const tensors = new Map<string, Tensor>();
  for (const name of readdirSync(folder).sort()) {
    if (!name.endsWith('.npy')) continue;
    const { dtype, shape, data } = parseNpy(readBytes(join(folder, name)), join(folder, name));
    const tensor = name.slice(0, -4);
    tensors.set(tensor, typed({ dtype, shape, data }, dtypes.get(tensor)));
  }
  return serializeSafetensors(tensors, metadata);
}
