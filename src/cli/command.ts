/** What every command has, and the small things they share. */
import { readFileSync } from 'node:fs';
import { extname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { resolveFp8Format, type Fp8Format } from '../formats.js';

export interface Command {
  /** Arguments, beginning with the command's name. */
  readonly usage: string;
  /** One sentence. */
  readonly summary: string;
  /** Options, one a line. */
  readonly details: string;
  /** @returns the exit code */
  run(args: string[]): Promise<number>;
}

/** The command line itself is wrong. */
export class UsageError extends Error {}

interface Option {
  type: 'string' | 'boolean';
  short?: string;
}

/** The value of each option that was stated. */
type Values<O> = { -readonly [Name in keyof O]?: O[Name] extends { type: 'boolean' } ? boolean : string };

/** Options and file names; what is not among the options is a UsageError. */
export function parse<const O extends Record<string, Option>>(args: string[], options: O): { values: Values<O>; positionals: string[] } {
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true, strict: true });
    return { values: values as Values<O>, positionals };
  } catch (error) {
    // Node's advice on an ambiguous option takes three lines.
    throw new UsageError((error as Error).message.replaceAll('\n', ' '));
  }
}

/** @throws UsageError unless there is exactly one file name and an output, which is another */
export function oneFile(positionals: readonly string[], output: string | undefined): { input: string; output: string } {
  if (positionals.length !== 1) throw new UsageError(`expected one input file, got ${positionals.length}`);
  if (output === undefined) throw new UsageError('expected -o FILE, where to write');
  if (resolve(output) === resolve(positionals[0])) throw new UsageError(`-o expected another file than the input, got ${output}`);
  return { input: positionals[0], output };
}

/** @throws UsageError for any file but .npy and .safetensors, or two different kinds */
export function fileKind(input: string, output: string): 'npy' | 'safetensors' {
  const kind = extname(input);
  if (kind !== '.npy' && kind !== '.safetensors') throw new UsageError(`${input}: expected a .npy or .safetensors file`);
  if (extname(output) !== kind) throw new UsageError(`${output}: expected a ${kind} file, as the input`);
  return kind === '.npy' ? 'npy' : 'safetensors';
}

/** @throws UsageError for any other name than an 8-bit format's */
export function formatOption(name = 'e4m3fn'): Fp8Format {
  try {
    return resolveFp8Format(name, '--format');
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** A file's bytes, aligned as typed arrays need them. */
export function readBytes(file: string): Uint8Array {
  const buffer = readFileSync(file);
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

export const JSON_OPTION = '  --json                 print one JSON value instead of text';
