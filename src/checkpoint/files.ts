/** All that a place holds about scales: which files there are, and what each says. */
import { FormatError } from '../errors.js';
import { quote } from '../files/tensor.js';
import { resolveQuantizedFormat, type QuantizedFormat } from '../formats.js';
import type { GivenGranularity } from '../kv-scales.js';
import { readShape, show, type ModelShape } from './config.js';
import { isObject, parseJson, type JsonObject } from './json.js';
import { readLegacy } from './legacy.js';
import { looksLikeScale, readScaleName } from './names.js';
import { readSchemes, type CacheScheme } from './scheme.js';
import type { CheckpointSource } from './source.js';
import { inParallel, readScaleFile, type ScaleFile, type ScaleTensor } from './tensors.js';

export interface Gathered {
  /** The files that were read. */
  readonly files: readonly string[];
  readonly shape: ModelShape;
  readonly schemes: readonly CacheScheme[];
  /** What a file of scales says of itself; it stands above all configurations. */
  readonly own: OwnScheme | undefined;
  readonly scales: readonly ScaleTensor[];
  readonly unmatched: readonly { readonly tensor: string; readonly file: string }[];
}

/** The metadata of a file that this package wrote: what `kv_cache_scheme` has no words for. */
interface OwnScheme {
  readonly where: string;
  readonly dtype: QuantizedFormat;
  readonly granularity: GivenGranularity;
}

/** The longest JSON file that is read, in bytes: as long as a header may be. */
const MAX_JSON_BYTES = 100_000_000;

async function readJson(source: CheckpointSource, file: string): Promise<JsonObject | undefined> {
  const bytes = await source.read(file, 0, MAX_JSON_BYTES + 1);
  if (bytes === undefined) return undefined;
  if (bytes.length > MAX_JSON_BYTES) throw new FormatError(file, MAX_JSON_BYTES, `a JSON file of over ${MAX_JSON_BYTES} bytes`);
  return parseJson(bytes, file);
}

/** @throws FormatError for malformed files; RangeError or TypeError naming the field or tensor that does not fit; Error where there is nothing */
export async function gather(source: CheckpointSource): Promise<Gathered> {
  return source.only === undefined ? gatherFolder(source) : gatherFile(source, source.only);
}

const unknownShape: ModelShape = { hasCache: () => true };

/** The length of a header, with which a .safetensors file begins, ends with zeros; text has none. */
async function isSafetensors(source: CheckpointSource, file: string): Promise<boolean> {
  const start = await source.read(file, 0, 8);
  if (start === undefined) throw new Error(`${source.name}: there is no such file`);
  return start.length < 8 || start[7] === 0;
}

async function gatherFile(source: CheckpointSource, file: string): Promise<Gathered> {
  if (await isSafetensors(source, file)) return gathered(unknownShape, [], [(await readScaleFile(source, file))!]);
  const { dtype, scales } = readLegacy((await readJson(source, file))!, file);
  return { files: [file], shape: unknownShape, schemes: [{ where: `${file}: kv_cache.dtype`, dtype }], own: undefined, scales, unmatched: [] };
}

/** Mistral's own form of a checkpoint says in params.json what config.json says elsewhere. */
const CONFIGS = ['config.json', 'params.json'];
const QUANTIZATION = 'hf_quant_config.json';
const LEGACY = 'kv_cache_scales.json';

async function gatherFolder(source: CheckpointSource): Promise<Gathered> {
  const [config, params, quantization, legacyJson] = await Promise.all([...CONFIGS, QUANTIZATION, LEGACY].map((file) => readJson(source, file)));
  const main = config ?? params;
  const mainFile = config ? CONFIGS[0] : CONFIGS[1];
  const shape = main ? readShape(main, mainFile) : unknownShape;
  const schemes = [...(main ? readSchemes(main, mainFile) : []), ...(quantization ? readSchemes(quantization, QUANTIZATION) : [])];
  const legacy = legacyJson && readLegacy(legacyJson, LEGACY);
  if (legacy) schemes.push({ where: `${LEGACY}: kv_cache.dtype`, dtype: legacy.dtype });
  const files = await scaleFiles(source);
  if (main === undefined && files.length === 0 && legacy === undefined) throw new Error(`${source.name}: there is no checkpoint: neither config.json nor .safetensors`);
  const { files: names, scales, ...rest } = gathered(shape, schemes, files);
  const jsons = [main && mainFile, quantization && QUANTIZATION, legacy && LEGACY].filter((file) => file !== undefined);
  return { ...rest, files: [...jsons, ...names], scales: [...scales, ...(legacy?.scales ?? [])] };
}

function gathered(shape: ModelShape, schemes: readonly CacheScheme[], files: readonly ScaleFile[]): Gathered {
  const own = files.flatMap((file) => ownScheme(file) ?? []);
  const other = own.find(({ dtype, granularity }) => dtype !== own[0].dtype || granularity !== own[0].granularity);
  if (other) throw new RangeError(`"${other.where}" expected ${own[0].dtype} and ${own[0].granularity}, as "${own[0].where}" says, got ${other.dtype} and ${other.granularity}`);
  return {
    files: files.map(({ file }) => file),
    shape,
    schemes,
    own: own[0],
    scales: files.flatMap(({ scales }) => scales),
    unmatched: files.flatMap(({ file, unmatched }) => unmatched.map((tensor) => ({ tensor, file }))),
  };
}

const granularities: readonly string[] = ['tensor', 'head', 'channel'] satisfies GivenGranularity[];

function ownScheme({ file, metadata }: ScaleFile): OwnScheme | undefined {
  const version = metadata.get('fp8_kv_scales');
  if (version === undefined) return undefined;
  const where = `${file}: __metadata__`;
  if (version !== '1') throw new RangeError(`"${where}.fp8_kv_scales" expected "1", got ${quote(version)}`);
  const granularity = metadata.get('granularity') ?? '';
  if (!granularities.includes(granularity)) throw new RangeError(`"${where}.granularity" expected ${granularities.join(', ')}, got ${quote(granularity)}`);
  return { where, dtype: resolveQuantizedFormat(metadata.get('dtype') ?? '', `${where}.dtype`), granularity: granularity as GivenGranularity };
}

/** Of Hugging Face, and of Mistral. */
const STEMS = ['model', 'consolidated'];

/** With an index, the files that it says hold scales, and those that it does not know; else all that there are. */
async function scaleFiles(source: CheckpointSource): Promise<ScaleFile[]> {
  const listed = (await source.list?.())?.filter((name) => name.endsWith('.safetensors'));
  for (const stem of STEMS) {
    const file = `${stem}.safetensors.index.json`;
    const index = await readJson(source, file);
    if (index) return readIndexed(source, index, file, listed ?? []);
  }
  if (listed) return readAll(source, listed);
  for (const stem of STEMS) {
    const file = await readScaleFile(source, `${stem}.safetensors`);
    if (file) return [file];
  }
  return readRanks(source);
}

const readAll = async (source: CheckpointSource, files: readonly string[]): Promise<ScaleFile[]> =>
  (await inParallel(files, (file) => readScaleFile(source, file))).filter((file) => file !== undefined);

/** More than any machine that serves a model, and there are places that have a file for every name. */
const MAX_RANKS = 1024;

/** TensorRT-LLM's: a file per rank. */
async function readRanks(source: CheckpointSource): Promise<ScaleFile[]> {
  const files: ScaleFile[] = [];
  while (files.length <= MAX_RANKS) {
    const file = await readScaleFile(source, `rank${files.length}.safetensors`);
    if (file === undefined) return files;
    files.push(file);
  }
  throw new Error(`${source.name}: there are over ${MAX_RANKS} files of ranks`);
}

/** A name that leads to no other folder or server. */
const isPlainName = (file: unknown): file is string => typeof file === 'string' && /^[^/\\:]+$/.test(file) && file !== '.' && file !== '..';

async function readIndexed(source: CheckpointSource, index: JsonObject, indexFile: string, listed: readonly string[]): Promise<ScaleFile[]> {
  const map = index.get('weight_map');
  if (!isObject(map)) throw new RangeError(`"${indexFile}: weight_map" expected an object, got ${show(map)}`);
  const wanted = new Map<string, string[]>();
  for (const [tensor, file] of map) {
    if (!isPlainName(file)) throw new RangeError(`"${indexFile}: weight_map" expected names of files beside it, got ${show(file)} for ${quote(tensor)}`);
    if (!readScaleName(tensor) && !looksLikeScale(tensor)) continue;
    const tensors = wanted.get(file);
    if (tensors) tensors.push(tensor);
    else wanted.set(file, [tensor]);
  }
  const indexed = new Set(map.values());
  const others = listed.filter((file) => !indexed.has(file));
  const shards = await inParallel([...wanted], async ([file, tensors]) => {
    const read = await readScaleFile(source, file);
    if (read === undefined) throw new Error(`${source.name}: ${quote(file)} is missing, in which ${indexFile} has ${quote(tensors[0])}`);
    const there = new Set([...read.scales.map(({ tensor }) => tensor), ...read.unmatched]);
    const lost = tensors.find((tensor) => !there.has(tensor));
    if (lost !== undefined) throw new Error(`${source.name}: ${quote(file)} lacks ${quote(lost)}, which ${indexFile} says it has`);
    return read;
  });
  return [...shards, ...(await readAll(source, others))];
}
