/** The scale tensors of a checkpoint's .safetensors files: headers are read, and of the data only what belongs to scales. */
import { FormatError } from '../errors.js';
import { checkSize } from '../files/safetensors.js';
import { LENGTH_BYTES, readHeaderLength, readHeaderOfAnyDtypes, type Entry } from '../files/safetensors-header.js';
import { float32, quote, showShape, uint16, type SafetensorsDtype } from '../files/tensor.js';
import { widen } from '../layouts/half-scales.js';
import { looksLikeScale, readScaleName, type ScaleName } from './names.js';
import type { CheckpointSource } from './source.js';

/** A scale tensor, or a number of a JSON file that stands for one. */
export interface ScaleTensor extends ScaleName {
  readonly tensor: string;
  readonly file: string;
  readonly shape: readonly number[];
  /** What the file holds, as f32. */
  readonly values: Float32Array;
}

export interface ScaleFile {
  readonly file: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly scales: readonly ScaleTensor[];
  /** Names that look like those of scales, and have no known form. */
  readonly unmatched: readonly string[];
}

/** More scales than any layer has: 1024 heads of 1024 dims. */
const MAX_SCALES = 2 ** 20;

/** More scales than all layers in a file have, and little enough to be held: 64 MB. */
const MAX_SCALES_OF_FILE = 2 ** 24;

/** Scales that lie so near to each other are read at once: a request costs more than the bytes between them. */
const GAP_BYTES = 4096;

/** Pieces that are asked for at the same time. */
const AT_ONCE = 8;

/** `work` of all items, a few at a time. The results are in the order of the items. */
export async function inParallel<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < items.length) {
      const index = next++;
      results[index] = await work(items[index]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, worker));
  return results;
}

/**
 * @returns undefined where there is no such file
 * @throws FormatError for a malformed file; TypeError for scales of a dtype that holds none
 */
export async function readScaleFile(source: CheckpointSource, file: string): Promise<ScaleFile | undefined> {
  const start = await source.read(file, 0, LENGTH_BYTES);
  if (start === undefined) return undefined;
  const headerEnd = LENGTH_BYTES + readHeaderLength(start, file);
  const text = (await source.read(file, LENGTH_BYTES, headerEnd)) ?? new Uint8Array(0);
  const bytes = new Uint8Array(LENGTH_BYTES + text.length);
  bytes.set(start);
  bytes.set(text, LENGTH_BYTES);
  const { dataStart, metadata, entries } = readHeaderOfAnyDtypes(bytes, file);
  const named = entries.flatMap((entry): Named[] => {
    const name = readScaleName(entry.name);
    return name ? [{ entry: scaleEntry(entry, file), name }] : [];
  });
  checkTotal(named, file);
  const pieces = await inParallel(runsOf(named), (run) => readRun(source, file, dataStart, run));
  const unmatched = entries.filter(({ name }) => !readScaleName(name) && looksLikeScale(name)).map(({ name }) => name);
  return { file, metadata, scales: pieces.flat(), unmatched };
}

type ScaleDtype = keyof typeof widened;

interface Named {
  readonly entry: Entry<ScaleDtype>;
  readonly name: ScaleName;
}

const isScaleEntry = (entry: Entry<string>): entry is Entry<ScaleDtype> => Object.hasOwn(widened, entry.dtype);

const countOf = ({ shape }: Entry<string>): number => shape.reduce((a, b) => a * b, 1);

function scaleEntry(entry: Entry<string>, file: string): Entry<ScaleDtype> {
  if (!isScaleEntry(entry)) throw new TypeError(`"${file}: ${entry.name}" expected ${Object.keys(widened).join(', ')}, got ${quote(entry.dtype)}`);
  checkSize(entry, Infinity, file);
  const count = countOf(entry);
  if (count < 1 || count > MAX_SCALES) throw new FormatError(file, entry.at, `tensor ${quote(entry.name)} expected 1 to ${MAX_SCALES} scales, got shape ${showShape(entry.shape)}`);
  return entry;
}

function checkTotal(named: readonly Named[], file: string): void {
  let total = 0;
  for (const { entry } of named) {
    total += countOf(entry);
    if (total > MAX_SCALES_OF_FILE) throw new FormatError(file, entry.at, `the scales up to tensor ${quote(entry.name)} are over ${MAX_SCALES_OF_FILE}`);
  }
}

/** Scales in the order of their bytes, cut where they lie apart. */
function runsOf(named: readonly Named[]): Named[][] {
  const runs: Named[][] = [];
  let end = -Infinity;
  for (const scale of [...named].sort((a, b) => a.entry.begin - b.entry.begin)) {
    if (scale.entry.begin - end > GAP_BYTES) runs.push([]);
    runs.at(-1)!.push(scale);
    end = Math.max(end, scale.entry.end);
  }
  return runs;
}

async function readRun(source: CheckpointSource, file: string, dataStart: number, run: readonly Named[]): Promise<ScaleTensor[]> {
  const begin = run[0].entry.begin;
  const end = Math.max(...run.map(({ entry }) => entry.end));
  const bytes = (await source.read(file, dataStart + begin, dataStart + end)) ?? new Uint8Array(0);
  return run.map(({ entry, name }) => {
    const data = bytes.subarray(entry.begin - begin, entry.end - begin);
    if (data.length < entry.end - entry.begin) throw new FormatError(file, entry.at, `the file ends before tensor ${quote(entry.name)} does`);
    return { ...name, tensor: entry.name, file, shape: entry.shape, values: widened[entry.dtype](entry, data) };
  });
}

/** The dtypes of scales, widened to f32: exact but for F64. */
const widened = {
  F32: (entry: Entry, data: Uint8Array) => float32({ ...entry, data }).slice(),
  F16: (entry: Entry, data: Uint8Array) => widen(uint16({ ...entry, data }), 'f16'),
  BF16: (entry: Entry, data: Uint8Array) => widen(uint16({ ...entry, data }), 'bf16'),
  F64: (_: Entry, data: Uint8Array) => Float32Array.from(new Float64Array(data.slice().buffer)),
} as const satisfies { readonly [D in SafetensorsDtype]?: unknown };
