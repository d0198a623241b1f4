import { existsSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { Calibration } from '../calibrate/calibration.js';
import { observerNames } from '../calibrate/options.js';
import { readScales } from '../checkpoint/read.js';
import { kvCacheScheme, serializeScales, withKvCacheScheme, withScalesFile } from '../checkpoint/write.js';
import { calibrateModel } from '../evaluate/calibrate.js';
import type { Text } from '../evaluate/evaluate.js';
import { list } from '../evaluate/report/text.js';
import { windowsOf } from '../evaluate/measure.js';
import { bytesOf, resolveQuantizedFormat, type QuantizedFormat } from '../formats.js';
import { givenGranularities, type GivenGranularity, type KvScales } from '../kv-scales.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';
import { editJson } from './edit-json.js';
import { BATCH_DETAILS, choiceOption, countOption, MODEL_DETAILS, openModel, openNamedBackend, type OpenModel } from './model-run.js';
import { checkKind, writeWhole } from './output.js';
import { Progress } from './progress.js';
import { scaleTable } from './scale-table.js';
import { readText, tokens } from './text.js';
import { hearing } from './warnings.js';

const CONFIG = 'config.json';
const INDEX = 'model.safetensors.index.json';

/** Where to write. */
interface Outputs {
  readonly scales: string;
  readonly config: string | undefined;
  readonly index: string | undefined;
}

/** @throws UsageError with what the work says is wrong */
function inUsage<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** Names of a model's own files. */
const holdsWeights = /^model\.safetensors$|-\d{5}-of-\d{5}\.safetensors$/;

/** @throws UsageError for files that cannot be written, that are one, or that are the model's weights */
function checkOutputs(directory: string, { scales, config, index }: Outputs): void {
  checkKind(scales, '-o', '.safetensors');
  if (config !== undefined) checkKind(config, '--config', '.json');
  if (index !== undefined) checkKind(index, '--index', '.json');
  const files = [scales, config, index].filter((file) => file !== undefined);
  if (new Set(files.map((file) => resolve(file))).size < files.length) throw new UsageError(`expected different files for -o, --config and --index, got ${files.join(', ')}`);
  const weights = files.find((file) => resolve(directory, basename(file)) === resolve(file) && holdsWeights.test(basename(file)));
  if (weights !== undefined) throw new UsageError(`expected files other than the model's weights, got ${weights}`);
  if (index !== undefined && !existsSync(join(directory, INDEX))) throw new UsageError(`--index expected a model that has ${INDEX}, which ${directory} has not`);
}

interface Plan {
  readonly dtype: QuantizedFormat;
  readonly granularity: GivenGranularity;
  readonly observer: (typeof observerNames)[number];
  readonly queries: boolean;
  readonly batch: number | undefined;
}

/** @throws Interrupted after Ctrl-C */
async function calibrateOn({ runner, tokenizer, window }: OpenModel, { ids }: Text, backendName: string | undefined, { batch, ...plan }: Plan): Promise<{ scales: KvScales; label: string }> {
  const { layers, queryHeads, kvHeads, headDim } = runner.config;
  const calibration = new Calibration({ layers, queryHeads, kvHeads, headDim, ...plan });
  const { backend, label } = await openNamedBackend(backendName);
  try {
    using progress = new Progress(windowsOf(ids.length, window), 'windows');
    await calibrateModel([calibration], ids, { backend, runner, bos: tokenizer.bos, window, batch, onWindow: () => progress.step(), onBatch: () => progress.pause() });
  } finally {
    backend.dispose();
  }
  return { scales: calibration.scales(), label };
}

/** Writes all files, each whole or not at all. */
function writeFiles({ directory, runner }: OpenModel, outputs: Outputs, scales: KvScales): void {
  const { headDim, queryHeads } = runner.config;
  const edited = (name: string, change: Parameters<typeof editJson>[2]): string => editJson(readFileSync(join(directory, name), 'utf8'), join(directory, name), change);
  // All is there before any is written.
  const config = outputs.config && edited(CONFIG, (json) => withKvCacheScheme(json, scales));
  const index = outputs.index && edited(INDEX, (json) => withScalesFile(json, basename(outputs.scales), scales));
  writeWhole(outputs.scales, serializeScales(scales, { headDim, queryHeads }));
  if (config) writeWhole(outputs.config!, config);
  if (index) writeWhole(outputs.index!, index);
}

const sameBits = (a: Float32Array | undefined, b: Float32Array | undefined): boolean => a === b || (a !== undefined && b !== undefined && Buffer.compare(bytesOf(a), bytesOf(b)) === 0);

/**
 * Reads what was written as a checkpoint of its own.
 * @returns what there is to say of the scales
 * @throws Error where other scales come back
 */
async function readBack({ scales: file, config, index }: Outputs, scales: KvScales): Promise<readonly string[]> {
  const files = { [basename(file)]: readFileSync(file), ...(config && { [CONFIG]: readFileSync(config) }), ...(index && { [INDEX]: readFileSync(index) }) };
  const { result: read, warnings } = await hearing(() => readScales(files));
  const isSame = read.dtype === scales.dtype && read.granularity === scales.granularity && read.layers.length === scales.layers.length
    && read.layers.every(({ scale, qScale }, layer) => {
      const written = scales.layers[layer];
      return sameBits(scale.k, written.scale.k) && sameBits(scale.v, written.scale.v) && sameBits(qScale, written.qScale);
    });
  if (!isSame) throw new Error(`${file} expected the scales that were written to it, got others when it was read`);
  return warnings.map((warning) => warning.slice(`${read.report.source}: `.length));
}

/** What to do with the files for vLLM. */
function nextStep({ directory }: OpenModel, outputs: Outputs, { dtype, granularity }: KvScales): string {
  const name = basename(outputs.scales);
  if (dtype === 'int8') return `vLLM has no cache of int8 with such scales: ${name} is for readScales of this package.`;
  if (dtype === 'e5m2' || granularity === 'channel') return `vLLM has no words for ${dtype === 'e5m2' ? dtype : `scales per ${granularity}`} in a checkpoint: ${name} is for readScales of this package.`;
  const wanted = [[outputs.scales, name, '-o'], [outputs.config, CONFIG, '--config'], ...(existsSync(join(directory, INDEX)) ? [[outputs.index, INDEX, '--index'] as const] : [])] as const;
  const toPut = wanted.filter(([path, as]) => path === undefined || resolve(path) !== resolve(directory, as)).map(([path, as, option]) => {
    if (path === undefined) return `what ${option} FILE writes as ${as}`;
    return basename(path) === as ? path : `${path} as ${as}`;
  });
  const put = toPut.length === 0 ? '' : `put ${list(toPut)} into the model's folder, and `;
  const heads = granularity === 'head' ? ' and with FlashAttention, which takes a scale per head' : '';
  return `For vLLM, ${put}serve that folder with --kv-cache-dtype fp8${heads}.`;
}

export const calibrate: Command = {
  usage: 'calibrate --model DIR --text FILE -o SCALES.safetensors',
  summary: "Finds the scales of a model's keys and values on a text, and writes them as checkpoints hold them.",
  details: `${MODEL_DETAILS}
${BATCH_DETAILS}
  --text FILE            what to calibrate with
  --limit N              tokens of the text, at most
  --observer NAME        ${observerNames.join(', ')}; default minmax
  --granularity NAME     what shares a scale: ${givenGranularities.join(', ')}; default tensor
  --dtype NAME           what the scales are for: e4m3fn (default), e5m2, int8, or a name of vLLM's
  --queries              scales of queries, too
  --backend wasm|webgpu  default wasm
  -o, --output FILE      where to write the scales
  --config FILE          where to write the model's config.json with its kv_cache_scheme
  --index FILE           where to write the model's index with the scales in it, if it has one
${JSON_OPTION}

What is written is read again and compared. Ctrl-C ends it, and leaves nothing half written.`,
  async run(args) {
    const { values, positionals } = parse(args, {
      model: { type: 'string' }, text: { type: 'string' }, limit: { type: 'string' }, window: { type: 'string' }, batch: { type: 'string' }, observer: { type: 'string' }, granularity: { type: 'string' },
      dtype: { type: 'string' }, queries: { type: 'boolean' }, backend: { type: 'string' }, output: { type: 'string', short: 'o' }, config: { type: 'string' }, index: { type: 'string' }, json: { type: 'boolean' },
    });
    if (positionals.length > 0) throw new UsageError(`expected options only, got ${positionals[0]}`);
    if (values.text === undefined) throw new UsageError('expected --text FILE');
    if (values.output === undefined) throw new UsageError('expected -o FILE, where to write');
    const limit = countOption(values.limit, 'limit');
    const plan: Plan = {
      dtype: inUsage(() => resolveQuantizedFormat(values.dtype ?? 'e4m3fn', '--dtype')),
      granularity: choiceOption(values.granularity, 'granularity', givenGranularities, 'tensor'),
      observer: choiceOption(values.observer, 'observer', observerNames, 'minmax'),
      queries: values.queries ?? false,
      batch: countOption(values.batch, 'batch'),
    };
    if (values.config !== undefined) inUsage(() => kvCacheScheme(plan));
    const outputs: Outputs = { scales: values.output, config: values.config, index: values.index };
    if (values.model !== undefined) checkOutputs(values.model, outputs);
    const model = await openModel(values);
    const text = readText(values.text, 'text', model, limit);
    const { scales, label } = await calibrateOn(model, text, values.backend, plan);
    writeFiles(model, outputs, scales);
    const notes = await readBack(outputs, scales);
    const next = nextStep(model, outputs, scales);
    const facts = { model: model.name, backend: label, text: { name: text.name, tokens: text.ids.length, window: model.window }, ...plan };
    if (values.json) {
      const layers = scales.layers.map(({ scale: { k, v }, qScale }) => ({ k: [...k], v: [...v], q: qScale && [...qScale] }));
      console.log(JSON.stringify({ ...facts, output: outputs.scales, config: outputs.config, index: outputs.index, layers, notes, next }));
      return 0;
    }
    console.log(`model        ${model.name}\nbackend      ${label}`);
    console.log(`calibrated   with ${text.name}: ${tokens(text)}, ${model.window} at a time, by ${plan.observer}`);
    console.log(`scales       for ${plan.dtype}, per ${plan.granularity}\n\n${scaleTable(scales)}\n`);
    for (const note of notes) console.log(`note: ${note}`);
    const written = [outputs.scales, outputs.config, outputs.index].filter((file) => file !== undefined);
    console.log(`${written.join(', ')}: written, and read back to the same bits\n${next}`);
    return 0;
  },
};
