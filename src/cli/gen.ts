import { extname } from 'node:path';
import type { FloatDtype, FormatName } from '../formats.js';
import type { Granularity } from '../layout.js';
import { generateAppendCase, generateAttendCase } from '../oracle/generate.js';
import { generateCodes, type GenerateCodesOptions } from '../oracle/generate-codes.js';
import type { RecipeName, ScalePrecision } from '../recipe.js';
import { checkNewFolder, writeCaseFolder } from './case-folder.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';
import { checkWritable, writeWhole } from './output.js';

const kinds: { readonly [kind: string]: (options: GenerateCodesOptions) => Promise<Uint8Array> } = { codes: generateCodes, append: generateAppendCase, attend: generateAttendCase };

function integer(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`--${name} expected an integer of at least 0, got ${text}`);
  return Number(text);
}

/** An option that does not fit is wrong usage. */
async function generated(kind: string, options: GenerateCodesOptions): Promise<Uint8Array> {
  try {
    return await kinds[kind](options);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

const string = { type: 'string' } as const;
const options = {
  output: { type: 'string', short: 'o' },
  seed: string, format: string, granularity: string, 'group-size': string, recipe: string, 'scale-precision': string, dtype: string, tokens: string,
  'kv-heads': string, 'query-heads': string, 'head-dim': string, 'block-size': string,
  'no-saturate': { type: 'boolean' },
  'ml-dtypes': { type: 'boolean' },
  json: { type: 'boolean' },
} as const;

type Values = ReturnType<typeof parse<typeof options>>['values'];

/** Whether the output is a folder; all that can be refused before there is something to write. */
function checkOutput(kind: string, { output, ...values }: Values): { output: string; folder: boolean } {
  if (output === undefined) throw new UsageError('expected -o FILE.safetensors or -o FOLDER, where to write');
  const folder = extname(output) === '';
  if (!folder && extname(output) !== '.safetensors') throw new UsageError(`${output} expected a .safetensors file, or a folder, whose name has no dot`);
  if (values['ml-dtypes'] && !folder) throw new UsageError('--ml-dtypes is for a folder: a .safetensors file states its dtypes');
  const others = (['no-saturate', 'scale-precision'] as const).find((name) => values[name] !== undefined);
  if (kind !== 'codes' && others !== undefined) throw new UsageError(`--${others} is for codes`);
  if (folder) checkNewFolder(output);
  else checkWritable(output);
  return { output, folder };
}

export const gen: Command = {
  usage: 'gen codes|append|attend -o CASE.safetensors|FOLDER [--format e4m3fn|e5m2|int8|f16|f32]',
  summary: 'Writes a case with its answer, to test a kernel with: the same file for the same options.',
  details: `  -o FILE.safetensors    where to write the case; or
  -o FOLDER              a new folder: a .npy file for each tensor, and case.json
  --ml-dtypes            in a folder: FP8 codes are |V1 and bf16 is <V2, as ml_dtypes' arrays are; else |u1 and <u2
  --seed N               0 (default), or another
  --format FORMAT        of codes: e4m3fn (default), e5m2 or int8; of keys and values also f16 or f32
  --granularity G        token-head (default), group, tensor, head or channel; codes without it are of the values as they are
  --group-size N         with granularity group
  --recipe NAME          amax (default), vllm-token-head, compressed-tensors, …
  --scale-precision P    of codes: f32, f16 or f16-stored, in place of the recipe's
  --no-saturate          of codes without granularity: too large becomes NaN (e4m3fn) or infinity (e5m2)
  --dtype DTYPE          of what is encoded or appended: f32 (default), f16 or bf16
  --tokens N             40 (default)
  --kv-heads N           2 (default)
  --query-heads N        of attention: 4 times as many (default)
  --head-dim N           64 (default)
  --block-size N         16 (default)
${JSON_OPTION}

Values are those at and beside every boundary between two codes, ties, outliers, denormals, zeros, infinities and NaN as well as ordinary ones.
"fp8-kv check CASE" compares what a kernel made: put it in the place of the tensors "expected.…".`,
  async run(args) {
    const { values, positionals } = parse(args, options);
    const [kind] = positionals;
    if (positionals.length !== 1 || !Object.hasOwn(kinds, kind)) throw new UsageError(`expected codes, append or attend, got ${positionals.join(' ') || 'nothing'}`);
    const { output, folder } = checkOutput(kind, values);
    const bytes = await generated(kind, {
      seed: integer(values.seed, 'seed'), format: values.format as FormatName, granularity: values.granularity as Granularity,
      groupSize: integer(values['group-size'], 'group-size'), recipe: values.recipe as RecipeName, dtype: values.dtype as FloatDtype,
      tokens: integer(values.tokens, 'tokens'), kvHeads: integer(values['kv-heads'], 'kv-heads'), queryHeads: integer(values['query-heads'], 'query-heads'),
      headDim: integer(values['head-dim'], 'head-dim'), blockSize: integer(values['block-size'], 'block-size'),
      ...(kind === 'codes' ? { scalePrecision: values['scale-precision'] as ScalePrecision, saturate: !values['no-saturate'] } : {}),
    });
    if (folder) {
      const files = writeCaseFolder(output, bytes, values['ml-dtypes'] ?? false);
      console.log(values.json ? JSON.stringify({ output, kind, files }) : `${output}: ${kind} case, ${files.join(', ')}`);
      return 0;
    }
    writeWhole(output, bytes);
    console.log(values.json ? JSON.stringify({ output, kind, bytes: bytes.length }) : `${output}: ${kind} case, ${bytes.length} bytes`);
    return 0;
  },
};
