import { basename } from 'node:path';
import { observerNames } from '../calibrate/options.js';
import { countWindows, evaluate as runEvaluation, shareOut, type EvaluateOptions } from '../evaluate/evaluate.js';
import type { Evaluation, VariantResult } from '../evaluate/evaluation.js';
import { answer, plain } from '../evaluate/report/answer.js';
import { renderReport } from '../evaluate/report/page.js';
import { change, divergence, perplexity, share } from '../evaluate/report/text.js';
import { formatChoices, givenVariant, isCalibrated, listVariants, scaleChoices, type FormatChoice, type Variant } from '../evaluate/variants.js';
import { readScales } from '../checkpoint/read.js';
import { resolveFormat } from '../formats.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';
import { BATCH_DETAILS, countOption, listOption, MODEL_DETAILS, openModel, openNamedBackend, type OpenModel } from './model-run.js';
import { checkKind, writeWhole } from './output.js';
import { Progress } from './progress.js';
import { fittingTable } from './table.js';
import { readText, tokens } from './text.js';
import { version } from './version.js';
import { hearing } from './warnings.js';

const GROUP_SIZE = 32;

type Plan = Pick<EvaluateOptions, 'text' | 'calibration' | 'variants' | 'window'>;

function rowOf(variant: VariantResult, reference: VariantResult): string[] {
  const { name, bytesPerToken, kl, agreement } = variant;
  const compared = variant === reference ? ['–', '–', '–', '–'] : [change(variant.perplexity, reference.perplexity), divergence(kl.mean), divergence(kl.p99), share(agreement)];
  return [name, `${bytesPerToken}`, `${(reference.bytesPerToken / bytesPerToken).toFixed(2)}×`, perplexity(variant.perplexity), ...compared];
}

/** Said before the work, which takes a while. */
function announce({ name, runner: { config } }: OpenModel, backend: string, { text, calibration, variants, window }: Plan): void {
  console.log(`model        ${name}: ${config.layers} layers, ${config.queryHeads} query and ${config.kvHeads} KV heads of ${config.headDim}`);
  console.log(`backend      ${backend}`);
  console.log(`evaluated    ${tokens(text)} of ${text.name}, ${window} at a time, through ${variants.length} caches`);
  if (calibration && variants.some(isCalibrated)) console.log(`calibrated   with ${calibration.name}: ${tokens(calibration)}`);
}

/** Formats, also by the names that vLLM has for them. */
function formatsOption(value: string | undefined): readonly FormatChoice[] {
  const resolved = value?.split(',').map((name) => {
    try {
      return resolveFormat(name);
    } catch {
      return name;
    }
  });
  return listOption(resolved?.join(','), 'formats', formatChoices, formatChoices);
}

/**
 * What a checkpoint states, with what there is to say of it on stderr.
 * @throws Error for one that states nothing, or other layers than the model has; as readScales
 */
async function readGiven(place: string, layers: number): Promise<Variant> {
  const { result: scales, warnings } = await hearing(() => readScales(place));
  if (scales.dtype === 'auto') throw new Error(`--given expected a checkpoint with scales, got ${place}, which has none`);
  if (scales.layers.length !== layers) throw new Error(`--given expected scales of ${layers} layers, as the model has, got ${scales.layers.length}`);
  for (const warning of warnings) console.error(`note: ${warning}`);
  return givenVariant(scales, basename(place));
}

/** What the report begins with, for those who read no further than their terminal. */
function showAnswer(evaluation: Evaluation): string {
  const { headline, remarks } = answer(evaluation, plain);
  return [headline, ...remarks.map((remark) => `- ${remark}`)].join('\n');
}

const showTable = (variants: readonly VariantResult[]): string =>
  fittingTable(['cache', 'bytes/token', 'saves', 'perplexity', 'change', 'mean KL', 'p99 KL', 'same top-1'], variants.map((variant) => rowOf(variant, variants[0])), ['change', 'p99 KL', 'saves'], process.stdout.columns);

export const evaluate: Command = {
  usage: 'evaluate --model DIR --text FILE [-o REPORT.html]',
  summary: 'Compares ways to store keys and values by what they do to a model: perplexity, KL divergence, agreement, bytes per token.',
  details: `${MODEL_DETAILS}
  --text FILE            what to evaluate on
  --calibrate FILE       what to calibrate scales with; default: the first fifth of the text, which is then not evaluated
${BATCH_DETAILS}
  --limit N              tokens of each text, at most
  --formats LIST         some of ${formatChoices.join(',')} (default all), or vLLM's names of them
  --scales LIST          some of ${scaleChoices.join(',')} (default all but group): all 1; given, after a calibration; computed on write
  --given PATH|URL       a checkpoint whose scales are compared as well: what inspect takes, as calibrate and others write it
  --observers LIST       some of ${observerNames.join(',')} (default minmax): each calibrates in its way
  --group-size N         dims that share a scale with group, default ${GROUP_SIZE}
  --backend wasm|webgpu  default wasm
  -o, --output FILE      where to write a report with pictures, a page of its own
${JSON_OPTION}

The reference is the model with a cache of f32. Ctrl-C ends it, and leaves nothing half written.`,
  async run(args) {
    const { values, positionals } = parse(args, {
      model: { type: 'string' }, text: { type: 'string' }, calibrate: { type: 'string' }, limit: { type: 'string' }, window: { type: 'string' }, batch: { type: 'string' },
      formats: { type: 'string' }, given: { type: 'string' }, scales: { type: 'string' }, observers: { type: 'string' }, 'group-size': { type: 'string' },
      backend: { type: 'string' }, output: { type: 'string', short: 'o' }, json: { type: 'boolean' },
    });
    if (positionals.length > 0) throw new UsageError(`expected options only, got ${positionals[0]}`);
    if (values.text === undefined) throw new UsageError('expected --text FILE');
    const limit = countOption(values.limit, 'limit');
    const batch = countOption(values.batch, 'batch');
    const variants: Variant[] = listVariants({
      formats: formatsOption(values.formats),
      scales: listOption(values.scales, 'scales', scaleChoices, scaleChoices.filter((choice) => choice !== 'group')),
      observers: listOption(values.observers, 'observers', observerNames, ['minmax']),
      groupSize: countOption(values['group-size'], 'group-size') ?? GROUP_SIZE,
    });
    if (values.output !== undefined) checkKind(values.output, '-o', '.html');
    const model = await openModel(values);
    const { name, runner, tokenizer, window } = model;
    const { headDim } = runner.config;
    if (values.given !== undefined) variants.push(await readGiven(values.given, runner.config.layers));
    if (variants.some(({ groupSize = 8 }) => groupSize % 8 !== 0 || headDim % groupSize !== 0)) throw new UsageError(`--group-size expected a multiple of 8 that divides ${headDim}, the model's head dimension, got ${values['group-size'] ?? GROUP_SIZE}`);
    const other = values.calibrate === undefined ? undefined : readText(values.calibrate, 'calibrate', model, limit);
    const all = readText(values.text, 'text', model, limit);
    const texts = other === undefined && variants.some(isCalibrated) ? shareOut(all) : { text: all, calibration: other };
    const { backend, label } = await openNamedBackend(values.backend);
    const plan: Plan = { ...texts, variants, window };
    if (!values.json) announce(model, label, plan);
    let evaluation: Evaluation;
    try {
      using progress = new Progress(countWindows(plan), 'windows');
      evaluation = await runEvaluation({ ...plan, backend, runner, bos: tokenizer.bos, batch, names: { model: name, backend: label }, onWindow: () => progress.step(), onBatch: () => progress.pause() });
    } finally {
      backend.dispose();
    }
    if (values.output !== undefined) writeWhole(values.output, renderReport(evaluation, { version }));
    console.log(values.json ? JSON.stringify(evaluation) : `\n${showTable(evaluation.variants)}\n\n${showAnswer(evaluation)}${values.output === undefined ? '' : `\n\n${values.output}: the report`}`);
    return 0;
  },
};
