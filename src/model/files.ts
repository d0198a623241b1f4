/** The files of a model's folder, wherever that is: on a disk, or with the visitor of a page. */
import { inOneLine } from '../errors.js';

export interface ModelFiles {
  /** Undefined where there is no such file. */
  read(name: string): Uint8Array | undefined;
  /** What to call a file in errors. */
  path(name: string): string;
}

/** @throws Error naming the file that is not there */
export function readFile(files: ModelFiles, name: string): Uint8Array {
  const bytes = files.read(name);
  if (bytes === undefined) throw new Error(`${files.path(name)} is missing`);
  return bytes;
}

/** @throws Error naming the file that is not there, or holds anything but a JSON object */
export function readJsonObject(files: ModelFiles, name: string): Record<string, unknown> {
  const file = files.path(name);
  const text = new TextDecoder().decode(readFile(files, name));
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${file} expected JSON: ${inOneLine(error)}`, { cause: error });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new Error(`${file} expected a JSON object, got ${text.trim().slice(0, 20)}`);
  return json as Record<string, unknown>;
}
