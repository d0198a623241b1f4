import { float32, showShape, uint16, uint8, valueDtypes, type Tensor } from '../files/tensor.js';
import { resolveQuantizedFormat, type FloatArray, type FloatDtype, type QuantizedFormat } from '../formats.js';
import { widenHalves } from '../layouts/half-scales.js';
import { checkCodes, checkScalesShape, type CheckCodesCall, type CodesCheck } from '../oracle/check-codes.js';
import type { AppendCheck } from '../oracle/check-append.js';
import type { AttendCheck } from '../oracle/check-attend.js';
import { checkCase } from '../oracle/check-case.js';
import type { CodeCheck, CodeMismatch } from '../oracle/check.js';
import type { Explanation } from '../oracle/explain.js';
import { ARRAY_FILES, readArray } from './array-files.js';
import { isFolder, readCaseFolder } from './case-folder.js';
import { JSON_OPTION, parse, readBytes, UsageError, type Command } from './command.js';

/** The formats that a tensor's dtype states; U8 states none. */
const statedFormats: { readonly [dtype: string]: QuantizedFormat } = { F8_E4M3: 'e4m3fn', F8_E5M2: 'e5m2', I8: 'int8' };

function readFloats({ dtype, ...tensor }: Tensor, from: string | undefined, what: string): { values: FloatArray; dtype: FloatDtype } {
  if (from !== undefined && (dtype !== 'U16' || (from !== 'f16' && from !== 'bf16'))) throw new UsageError(`--from is f16 or bf16, for an input of <u2, got ${from} for ${dtype}`);
  const stated = from ?? valueDtypes[dtype];
  if (stated === undefined) throw new UsageError(`${what} expected f32, f16 or bf16 values, got ${dtype}${dtype === 'U16' ? ': --from says what they are' : ''}`);
  return { values: stated === 'f32' ? float32({ dtype, ...tensor }, what) : uint16({ dtype, ...tensor }, what), dtype: stated as FloatDtype };
}

function readScales(tensor: Tensor): Float32Array {
  if (tensor.dtype === 'F16') return widenHalves(uint16(tensor));
  if (tensor.dtype !== 'F32') throw new UsageError(`--scales expected f32 or f16 values, got ${tensor.dtype}`);
  return float32(tensor);
}

function formatOf(stated: string | undefined, { dtype }: Tensor): QuantizedFormat {
  const told = statedFormats[dtype];
  const format = stated === undefined ? (told ?? 'e4m3fn') : resolveQuantizedFormat(stated, '--format');
  if (told !== undefined && told !== format) throw new UsageError(`--format is ${format}, but the codes are ${dtype}`);
  return format;
}

/** Nine digits are enough to tell any two f32 apart. */
const shown = (value: number): string => (Object.is(value, -0) ? '-0' : `${Number(value.toPrecision(9))}`);

function mismatchLine({ tensor, at, input, inputValue, scale, expected, found, expectedValue, foundValue }: CodeMismatch): string {
  const of = input === undefined ? '' : `input ${input} (${shown(inputValue!)})${scale === undefined ? '' : `, scale ${shown(scale)}`}, `;
  return `  ${tensor}${showShape(at)}: ${of}expected ${expected} (${shown(expectedValue)}), found ${found} (${shown(foundValue)})`;
}

function explanationLines({ all, most }: Explanation, count: number): string[] {
  if (all.length > 0) return [all.length > 1 ? 'each of these explains it:' : 'this explains it:', ...all.map(({ name, summary, source }) => `  ${name}: ${summary} (${source})`)];
  if (most === undefined) return ['no known dialect explains it'];
  const { name, summary, source, explained, contradicted } = most;
  const but = contradicted > 0 ? `, but would change ${contradicted} that are right` : '';
  return ['no known dialect explains all of it; nearest is', `  ${name}: ${summary} (${source}); it explains ${explained} of ${count}${but}`];
}

function lines({ equal, codes, scales, differing, first, explanation }: CodeCheck): string[] {
  if (equal) return [`equal: ${codes} codes${scales > 0 ? ` and ${scales} scales` : ''}`];
  const ofScales = scales > 0 ? ` and ${differing.scales} of ${scales} scales` : '';
  const count = differing.codes + differing.scales;
  const more = count > first.length ? [`  … and ${count - first.length} more`] : [];
  return [`${differing.codes} of ${codes} codes${ofScales} differ, first`, ...first.map(mismatchLine), ...more, ...explanationLines(explanation!, count)];
}

/** Keys, then values, each as codes are. */
const appendLines = ({ sides }: AppendCheck): string[] => sides.flatMap((side) => lines(side).map((line, i) => (i === 0 ? `${side.side}: ${line}` : line)));

function attendLines({ equal, error, bound, rows, differing, first, explanation }: AttendCheck): string[] {
  const figures = `off by out ${error.out.toExponential(1)}, lse ${error.lse.toExponential(1)} (bounds ${bound.out}, ${bound.lse})`;
  if (equal) return [`equal: ${rows} rows, ${figures}`];
  const { all, most } = explanation!;
  return [`${differing} of ${rows} rows differ, first row ${first![0]}, head ${first![1]}: ${figures}`, ...explanationLines({ all, most: most && { ...most, contradicted: 0 } }, differing)];
}

type Check = CodesCheck | AppendCheck | AttendCheck;

function linesOf(result: Check): string[] {
  if (result.kind === 'codes') return lines(result);
  return result.kind === 'append' ? appendLines(result) : attendLines(result);
}

/** JSON has no NaN and no infinity: they are strings. */
const json = (result: Check): string => JSON.stringify(result, (_, value: unknown) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value));

const options = {
  input: { type: 'string' },
  codes: { type: 'string' },
  scales: { type: 'string' },
  format: { type: 'string' },
  granularity: { type: 'string' },
  'group-size': { type: 'string' },
  recipe: { type: 'string' },
  'scale-precision': { type: 'string' },
  layout: { type: 'string' },
  'no-saturate': { type: 'boolean' },
  from: { type: 'string' },
  json: { type: 'boolean' },
} as const;

type Values = ReturnType<typeof parse<typeof options>>['values'];

function checkArrays(values: Values): CodesCheck {
  if (values.input === undefined || values.codes === undefined) throw new UsageError('expected --input FILE and --codes FILE');
  const input = readArray(values.input);
  const codes = readArray(values.codes);
  if (showShape(codes.shape) !== showShape(input.shape)) throw new UsageError(`--codes expected the shape of the input, ${showShape(input.shape)}, got ${showShape(codes.shape)}`);
  if (values.scales !== undefined && values.granularity === undefined) throw new UsageError('--scales expected --granularity, which says what they are for');
  const { values: floatValues, dtype } = readFloats(input, values.from, '--input');
  const scales = values.scales === undefined ? undefined : readArray(values.scales);
  const call: CheckCodesCall = {
    input: floatValues, dtype, shape: input.shape, codes: uint8(codes, '--codes'), format: formatOf(values.format, codes),
    scales: scales && readScales(scales),
    granularity: values.granularity as CheckCodesCall['granularity'],
    groupSize: values['group-size'] === undefined ? undefined : Number(values['group-size']),
    recipe: values.recipe as CheckCodesCall['recipe'],
    scalePrecision: values['scale-precision'] as CheckCodesCall['scalePrecision'],
    layout: values.layout as CheckCodesCall['layout'],
    saturate: !values['no-saturate'],
  };
  // What is wrong beside is said first.
  const result = checkCodes(call);
  if (scales) checkScalesShape(scales.shape, call, '--scales');
  return result;
}

function checkDump(values: Values, positionals: readonly string[]): Promise<Check> {
  const [stray] = Object.keys(values).filter((name) => name !== 'json');
  if (positionals.length > 1 || stray !== undefined) throw new UsageError(`expected one case, or --input and --codes, got ${positionals[1] ?? `--${stray}`} beside ${positionals[0]}`);
  const [path] = positionals;
  if (/\.np[yz]$/.test(path)) throw new UsageError(`expected a case (.safetensors, or a folder), got ${path}: arrays are named by --input and --codes`);
  return checkCase(isFolder(path) ? readCaseFolder(path) : readBytes(path), path);
}

/** 1 says that something differs: what keeps it from being known is something else. */
async function answered(values: Values, positionals: readonly string[]): Promise<Check> {
  try {
    return positionals.length > 0 ? await checkDump(values, positionals) : checkArrays(values);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

export const check: Command = {
  usage: 'check --input X --codes Y [--scales S --granularity G] [--format e4m3fn|e5m2|int8]\n   or  fp8-kv check CASE.safetensors|FOLDER',
  summary: "Checks a kernel's codes and scales bit by bit, and names the known dialect that explains a difference.",
  details: `  --input FILE           what was encoded: f32, f16 or bf16 values, [..., dim]
  --codes FILE           what the kernel made of it
  --format FORMAT        e4m3fn (default, unless the codes' file says another), e5m2 or int8
  --granularity G        tensor, head, channel: scales are given; token-head, group: computed. Without: values are encoded as they are
  --scales FILE          scales that are given, or those that the kernel computed, which are checked then
  --group-size N         with granularity group: values that share a scale
  --recipe NAME          how scales are computed: amax (default), vllm-token-head, compressed-tensors, …
  --scale-precision P    f32, f16 or f16-stored, in place of the recipe's
  --layout NHD|HND       how heads and tokens lie: [..., tokens, heads, dim] (default) or [..., heads, tokens, dim]
  --no-saturate          too large is to become NaN (e4m3fn) or infinity (e5m2); without scales
  --from f16|bf16        what the bits of an input of <u2 are
${JSON_OPTION}

${ARRAY_FILES} Codes: |u1, |i1, |V1, <V1 or <f1 (FP8 of ml_dtypes). Input: <f4, <f2, <V2 (bfloat16 of ml_dtypes).
CASE is a codes, append or attend case whose tensors "expected.…" are what the kernel gave; FOLDER is one as "gen" writes it.
Exit code 0: equal; 1: different; 2: wrong usage, or a file that cannot be read.`,
  async run(args) {
    const { values, positionals } = parse(args, options);
    const result = await answered(values, positionals);
    console.log(values.json ? json(result) : linesOf(result).join('\n'));
    return result.equal ? 0 : 1;
  },
};
