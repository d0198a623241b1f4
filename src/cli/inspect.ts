import { readScales, type CheckpointScales, type UnquantizedCheckpoint } from '../checkpoint/read.js';
import type { FoundScale, ScaleReport } from '../checkpoint/report.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';
import { scaleTable } from './scale-table.js';
import { hearing } from './warnings.js';

type Read = CheckpointScales | UnquantizedCheckpoint;

/** Where what is said of a checkpoint begins. */
const COLUMN = 13;

/** Names of files, as many as fit a line. */
const few = (names: readonly string[]): string => (names.length > 4 ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more` : names.join(', '));

/** Names in files of others may hold what a terminal obeys. */
const printable = (text: string): string => text.replaceAll(/\p{Cc}/gu, '�');

function dtypeLine({ dtype, report: { dtypeFrom } }: Read): string {
  if (dtype === 'auto') return `as the model has them: ${dtypeFrom === undefined ? 'nothing says that they are quantized' : `"${dtypeFrom}" says that they are not quantized`}`;
  return `${dtype}, ${dtypeFrom === undefined ? 'which all systems assume where nothing is said' : `as "${dtypeFrom}" says`}`;
}

/** Forms of names, each with an example. */
function formsOf(found: readonly FoundScale[]): string[] {
  if (found.length === 0) return ['no scale'];
  const bySystem = new Map<string, FoundScale[]>();
  for (const scale of found) bySystem.set(scale.system, [...(bySystem.get(scale.system) ?? []), scale]);
  return [...bySystem].map(([system, scales]) => `${scales.length} as ${system} names them: ${scales[0].tensor.slice(0, 120)}${scales.length > 1 ? ', …' : ''}`);
}

/** What to say of sides without a scale of their own. */
function insteadOf({ missing, duplicated, found }: ScaleReport): (layer: number, side: 'k' | 'v' | 'q') => string | undefined {
  const key = (layer: number, side: string): string => `${layer}.${side}`;
  const keys = (sides: readonly { readonly layer: number; readonly side: string }[]): Set<string> => new Set(sides.map(({ layer, side }) => key(layer, side)));
  const [absent, copied, own] = [keys(missing), keys(duplicated), keys(found)];
  return (layer, side) => {
    if (own.has(key(layer, side)) || (side !== 'q' && own.has(key(layer, 'kv')))) return undefined;
    if (copied.has(key(layer, side))) return `as ${side === 'k' ? 'V' : 'K'}`;
    return absent.has(key(layer, side)) ? '1, missing' : 'no cache';
  };
}

function print(read: Read, notes: readonly string[]): void {
  const { report } = read;
  const facts = { checkpoint: report.source, read: few(report.files), layers: `${read.layers.length}`, dtype: dtypeLine(read), ...(read.granularity && { granularity: read.granularity }) };
  for (const [name, fact] of Object.entries(facts)) console.log(`${name.padEnd(COLUMN)}${printable(fact)}`);
  console.log(`${'found'.padEnd(COLUMN)}${formsOf(report.found).map(printable).join(`\n${' '.repeat(COLUMN)}`)}`);
  if (read.dtype !== 'auto' && read.layers.length > 0) console.log(`\n${scaleTable(read, insteadOf(report))}`);
  if (notes.length > 0) console.log(`\n${notes.map((note) => `note: ${printable(note)}`).join('\n')}`);
}

/** Plain data, scales as numbers. */
function plain(read: Read, notes: readonly string[]): object {
  const { dtype, granularity, beforeRope, report } = read;
  const layers = read.dtype === 'auto' ? read.layers.length : read.layers.map(({ scale: { k, v }, qScale }) => ({ k: [...k], v: [...v], q: qScale && [...qScale] }));
  return { dtype, granularity, beforeRope, layers, report, notes };
}

export const inspect: Command = {
  usage: 'inspect PATH|URL',
  summary: 'Shows what a checkpoint says about its KV cache: dtype, granularity, scales, and what is missing or odd.',
  details: `  PATH                   a folder, a .safetensors file, or a .json file of scales
  URL                    the same on a web server, or a repository of Hugging Face: of weights nothing is loaded
${JSON_OPTION}

Exit code 1 for what cannot be read, or asks for what is not done here.`,
  async run(args) {
    const { values, positionals } = parse(args, { json: { type: 'boolean' } });
    if (positionals.length !== 1) throw new UsageError(`expected one path or URL, got ${positionals.length}`);
    const { result: read, warnings } = await hearing(() => readScales(positionals[0]));
    const notes = warnings.map((warning) => warning.slice(`${read.report.source}: `.length));
    if (values.json) console.log(JSON.stringify(plain(read, notes)));
    else print(read, notes);
    return 0;
  },
};
