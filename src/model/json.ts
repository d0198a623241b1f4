import { readFileSync } from 'node:fs';
import { inOneLine } from '../errors.js';

/** @throws Error naming the file that is not there, or holds anything but a JSON object */
export function readJsonObject(file: string): Record<string, unknown> {
  const text = readFileSync(file, 'utf8');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error(`${file} expected JSON: ${inOneLine(error)}`, { cause: error });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new Error(`${file} expected a JSON object, got ${text.trim().slice(0, 20)}`);
  return json as Record<string, unknown>;
}
