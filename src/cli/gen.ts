import type { FloatDtype, FormatName } from '../formats.js';
import type { Granularity } from '../layout.js';
import { generateAppendCase, generateAttendCase, type GenerateOptions } from '../oracle/generate.js';
import type { RecipeName } from '../recipe.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';
import { checkWritable, writeWhole } from './output.js';

const kinds: { readonly [kind: string]: (options: GenerateOptions) => Promise<Uint8Array> } = { append: generateAppendCase, attend: generateAttendCase };

function integer(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`--${name} expected an integer of at least 0, got ${text}`);
  return Number(text);
}

/** An option that does not fit is wrong usage. */
async function generated(kind: string, options: GenerateOptions): Promise<Uint8Array> {
  try {
    return await kinds[kind](options);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

export const gen: Command = {
  usage: 'gen append|attend -o CASE.safetensors [--format e4m3fn|e5m2|int8|f16|f32]',
  summary: 'Writes a case with its answer, to test a kernel with: the same file for the same options.',
  details: `  -o FILE                where to write the case
  --seed N               0 (default), or another
  --format FORMAT        of keys and values: e4m3fn (default), e5m2, int8, f16 or f32
  --granularity G        token-head (default), group, tensor, head or channel
  --group-size N         with granularity group
  --recipe NAME          amax (default), vllm-token-head, compressed-tensors, …
  --dtype DTYPE          of what is appended: f32 (default), f16 or bf16
  --tokens N             40 (default)
  --kv-heads N           2 (default)
  --query-heads N        of attention: 4 times as many (default)
  --head-dim N           64 (default)
  --block-size N         16 (default)
${JSON_OPTION}

Rows to append are ties, outliers, denormals, zeros, infinities and NaN as well as ordinary ones.`,
  async run(args) {
    const string = { type: 'string' } as const;
    const { values, positionals } = parse(args, {
      output: { type: 'string', short: 'o' },
      seed: string, format: string, granularity: string, 'group-size': string, recipe: string, dtype: string, tokens: string,
      'kv-heads': string, 'query-heads': string, 'head-dim': string, 'block-size': string,
      json: { type: 'boolean' },
    });
    const [kind] = positionals;
    if (positionals.length !== 1 || !Object.hasOwn(kinds, kind)) throw new UsageError(`expected append or attend, got ${positionals.join(' ') || 'nothing'}`);
    const { output } = values;
    if (output === undefined) throw new UsageError('expected -o FILE, where to write');
    checkWritable(output);
    const bytes = await generated(kind, {
      seed: integer(values.seed, 'seed'), format: values.format as FormatName, granularity: values.granularity as Granularity,
      groupSize: integer(values['group-size'], 'group-size'), recipe: values.recipe as RecipeName, dtype: values.dtype as FloatDtype,
      tokens: integer(values.tokens, 'tokens'), kvHeads: integer(values['kv-heads'], 'kv-heads'), queryHeads: integer(values['query-heads'], 'query-heads'),
      headDim: integer(values['head-dim'], 'head-dim'), blockSize: integer(values['block-size'], 'block-size'),
    });
    writeWhole(output, bytes);
    console.log(values.json ? JSON.stringify({ output, kind, bytes: bytes.length }) : `${output}: ${kind} case, ${bytes.length} bytes`);
    return 0;
  },
};
