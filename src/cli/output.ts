/** Files that are there whole, or not at all. */
import { accessSync, constants, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { UsageError } from './command.js';

/** Before work begins that would be lost: @throws UsageError where no file can be written, or where it would take the place of something else */
export function checkWritable(file: string): void {
  if (file === '') throw new UsageError('the output expected the name of a file, got nothing');
  try {
    // The slash: a file is no folder.
    accessSync(`${dirname(file)}/`, constants.W_OK);
  } catch {
    throw new UsageError(`${file} expected a folder that can be written to, got ${dirname(file)}`);
  }
  // A device would be replaced as well, and /dev/null is easily said.
  if (statSync(file, { throwIfNoEntry: false })?.isFile() === false) throw new UsageError(`${file} expected a file, or nothing yet, got a folder or a device`);
}

/** As {@link checkWritable}, of a kind of file: @throws UsageError for a name that ends otherwise, as those of a text or a model do that are easily named by mistake */
export function checkKind(file: string, option: string, ending: '.html' | '.json' | '.safetensors'): void {
  checkWritable(file);
  if (!file.endsWith(ending)) throw new UsageError(`${option} expected a ${ending} file, got ${file}`);
}

/** The file appears, or is replaced, when all of it is written. */
export function writeWhole(file: string, content: string | Uint8Array): void {
  const part = `${file}.${process.pid}.part`;
  try {
    writeFileSync(part, content);
    renameSync(part, file);
  } catch (error) {
    rmSync(part, { force: true });
    throw error;
  }
}
