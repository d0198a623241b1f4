import { tuneWebgpu, type TunedCandidate } from '../webgpu/tune.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';
import { writeWhole } from './output.js';

function print({ kernel, tuning, milliseconds }: TunedCandidate): void {
  const { subgroups, decode, prefill } = tuning;
  const what = kernel === 'prefill' ? `${prefill.rowsPerWorkgroup} rows per workgroup` : `${decode.loadsAhead} loads ahead, ${decode.cutsPerWorkgroup} cuts per workgroup, ${subgroups ? 'subgroups' : 'plain'}`;
  console.log(`${kernel.padEnd(8)} ${what.padEnd(48)} ${milliseconds.toPrecision(3)} ms`);
}

function count(value: string | undefined, name: string): number | undefined {
  if (value === undefined) return undefined;
  if (!/^[1-9]\d{0,5}$/.test(value)) throw new UsageError(`--${name} expected a number, got ${value}`);
  return Number(value);
}

export const tune: Command = {
  usage: 'tune [-o FILE]',
  summary: 'Finds how the GPU kernels best share out their work on this adapter.',
  details: `  -o, --output FILE      where to keep the tuning, for requestWebgpuBackend({ tuning: JSON.parse(…) }); else it is printed
  --query-heads N        heads of the model, default 32
  --kv-heads N           default 8
  --head-dim N           default 128
${JSON_OPTION}

It says how soon results are there, and nothing of what they are. Exit code 1 without a GPU.`,
  async run(args) {
    const { values, positionals } = parse(args, {
      output: { type: 'string', short: 'o' }, 'query-heads': { type: 'string' }, 'kv-heads': { type: 'string' }, 'head-dim': { type: 'string' }, json: { type: 'boolean' },
    });
    if (positionals.length > 0) throw new UsageError(`expected no file, got ${positionals[0]}`);
    const [queryHeads, kvHeads, headDim] = [count(values['query-heads'], 'query-heads'), count(values['kv-heads'], 'kv-heads'), count(values['head-dim'], 'head-dim')];
    const tuning = await tuneWebgpu({ queryHeads, kvHeads, headDim, onCandidate: values.json ? undefined : print });
    const text = JSON.stringify(tuning, null, 2);
    if (values.output !== undefined) writeWhole(values.output, `${text}\n`);
    if (values.output === undefined || values.json) console.log(values.json ? JSON.stringify(tuning) : text);
    return 0;
  },
};
