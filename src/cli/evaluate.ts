import { observerNames } from '../calibrate/options.js';
import { countWindows, evaluate as runEvaluation, shareOut, type EvaluateOptions, type Text } from '../evaluate/evaluate.js';
import type { Evaluation, VariantResult } from '../evaluate/evaluation.js';
import { renderReport } from '../evaluate/report/page.js';
import { change, divergence, perplexity, share } from '../evaluate/report/text.js';
import { isCalibrated, listVariants, scaleChoices, type Variant } from '../evaluate/variants.js';
import { quantizedFormats } from '../formats.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';
import { BATCH_DETAILS, countOption, listOption, MODEL_DETAILS, openModel, openNamedBackend, readText, type OpenModel } from './model-run.js';
import { checkWritable, writeWhole } from './output.js';
import { Progress } from './progress.js';
import { table } from './table.js';
import { version } from './version.js';

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
  console.log(`evaluated    ${text.ids.length} tokens of ${text.name}, ${window} at a time, through ${variants.length} caches`);
  if (calibration && variants.some(isCalibrated)) console.log(`calibrated   with ${calibration.name}: ${calibration.ids.length} tokens`);
}

const showTable = (variants: readonly VariantResult[]): string =>
  table(['cache', 'bytes/token', 'saves', 'perplexity', 'change', 'mean KL', 'p99 KL', 'same top-1'], variants.map((variant) => rowOf(variant, variants[0])));

export const evaluate: Command = {
  usage: 'evaluate --model DIR --text FILE [-o REPORT.html]',
  summary: 'Compares ways to store keys and values by what they do to a model: perplexity, KL divergence, agreement, bytes per token.',
  details: `${MODEL_DETAILS}
  --text FILE            what to evaluate on
  --calibrate FILE       what to calibrate scales with; default: the first fifth of the text, which is then not evaluated
${BATCH_DETAILS}
  --limit N              tokens of each text, at most
  --formats LIST         some of ${quantizedFormats.join(',')} (default all)
  --scales LIST          some of ${scaleChoices.join(',')} (default all but group): all 1; given, after a calibration; computed on write
  --observers LIST       some of ${observerNames.join(',')} (default minmax): each calibrates in its way
  --group-size N         dims that share a scale with group, default ${GROUP_SIZE}
  --backend wasm|webgpu  default wasm
  -o, --output FILE      where to write a report with pictures, a page of its own
${JSON_OPTION}

The reference is the model with a cache of f32. Ctrl-C ends it, and leaves nothing half written.`,
  async run(args) {
    const { values, positionals } = parse(args, {
      model: { type: 'string' }, text: { type: 'string' }, calibrate: { type: 'string' }, limit: { type: 'string' }, window: { type: 'string' }, batch: { type: 'string' },
      formats: { type: 'string' }, scales: { type: 'string' }, observers: { type: 'string' }, 'group-size': { type: 'string' },
      backend: { type: 'string' }, output: { type: 'string', short: 'o' }, json: { type: 'boolean' },
    });
    if (positionals.length > 0) throw new UsageError(`expected options only, got ${positionals[0]}`);
    if (values.text === undefined) throw new UsageError('expected --text FILE');
    const limit = countOption(values.limit, 'limit') ?? Infinity;
    const batch = countOption(values.batch, 'batch');
    const variants: Variant[] = listVariants({
      formats: listOption(values.formats, 'formats', quantizedFormats, quantizedFormats),
      scales: listOption(values.scales, 'scales', scaleChoices, scaleChoices.filter((choice) => choice !== 'group')),
      observers: listOption(values.observers, 'observers', observerNames, ['minmax']),
      groupSize: countOption(values['group-size'], 'group-size') ?? GROUP_SIZE,
    });
    if (values.output !== undefined) checkWritable(values.output);
    const model = await openModel(values);
    const { name, runner, tokenizer, window } = model;
    const { headDim } = runner.config;
    if (variants.some(({ groupSize = 8 }) => groupSize % 8 !== 0 || headDim % groupSize !== 0)) throw new UsageError(`--group-size expected a multiple of 8 that divides ${headDim}, the model's head dimension, got ${values['group-size'] ?? GROUP_SIZE}`);
    const upTo = ({ name: file, ids }: Text): Text => ({ name: file, ids: ids.slice(0, limit) });
    const other = values.calibrate === undefined ? undefined : upTo(readText(values.calibrate, tokenizer));
    const all = upTo(readText(values.text, tokenizer));
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
    console.log(values.json ? JSON.stringify(evaluation) : `\n${showTable(evaluation.variants)}${values.output === undefined ? '' : `\n\n${values.output}: the report`}`);
    return 0;
  },
};
