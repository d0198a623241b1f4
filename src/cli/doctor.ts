import type { AlignedCase } from '../align/battery.js';
import { inOneLine } from '../errors.js';
import { alignGpu } from './alignment.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';
import { examine, type GpuFacts, type Machine } from './machine.js';

const word = (has: boolean): string => (has ? 'yes' : 'no');

function gpuLine({ name, driver, software, subgroups, f16, largestBuffer, kernels, problem }: GpuFacts): string {
  if (name === undefined) return `none: ${problem}`;
  const size = `${(largestBuffer! / 2 ** 30).toFixed(2)} GiB`;
  return `${name}${driver ? ` (${driver})` : ''}${software ? ', on the CPU' : ''}; subgroups ${word(subgroups!)}, f16 ${word(f16!)}, buffers up to ${size}, ${kernels ? `kernels ${kernels}` : problem}`;
}

function print({ machine, wasm, gpu, codec, gigaValuesPerSecond, choice }: Machine): void {
  console.log(`machine       ${machine.cpu}, ${machine.cores} cores, ${machine.platform}, ${machine.runtime}`);
  console.log(`WebAssembly   SIMD ${word(wasm.simd)}, relaxed SIMD ${word(wasm.relaxedSimd)}, shared memory ${word(wasm.sharedMemory)}`);
  console.log(`GPU           ${gpuLine(gpu)}`);
  if (codec) console.log(`codec         e4m3fn ${codec.e4m3fn ? 'exact' : 'WRONG'}, e5m2 ${codec.e5m2 ? 'exact' : 'WRONG'} (all 256 codes there and back)`);
  if (gigaValuesPerSecond) console.log(`speed         encode ${gigaValuesPerSecond.encode}, decode ${gigaValuesPerSecond.decode} G values/s (e4m3fn, 1 M values, one core)`);
  if (choice) console.log(`backend       ${choice.backend === 'wasm' ? `wasm, ${wasm.relaxedSimd ? 'relaxed' : 'baseline'} build` : 'webgpu'}: ${choice.reason}`);
}

/** What is wrong with the machine, if anything. */
function problemOf({ wasm, codec }: Machine): string | undefined {
  if (!wasm.simd) return 'WebAssembly SIMD expected, this engine has none';
  return codec?.e4m3fn && codec.e5m2 ? undefined : 'the codec gives wrong bytes on this machine';
}

function printCase({ name, alignment: { ok, summary } }: AlignedCase): void {
  if (ok) console.log(`ok ${name}: ${summary}`);
  else console.error(`FAILED ${name}: ${summary}`);
}

interface Findings extends Machine {
  readonly ok: boolean;
  readonly problem?: string;
  readonly align?: readonly AlignedCase[];
}

async function align(machine: Machine, exhaustive: boolean, report: (result: AlignedCase) => void): Promise<Findings> {
  try {
    const cases = await alignGpu(exhaustive, report);
    const failed = cases.filter(({ alignment }) => !alignment.ok).length;
    return { ...machine, ok: failed === 0, problem: failed === 0 ? undefined : `the GPU differs from WebAssembly in ${failed} of ${cases.length} cases`, align: cases };
  } catch (error) {
    return { ...machine, ok: false, problem: `the GPU could not be tried: ${inOneLine(error)}` };
  }
}

export const doctor: Command = {
  usage: 'doctor [--align [--exhaustive]]',
  summary: 'Says what this machine offers, and whether what it offers computes what it must.',
  details: `  --align                run small calls of every kind on the GPU and on WebAssembly: the same bytes, and attention within its bound
  --exhaustive           encode all 2^32 f32 values on both, too, in both formats
${JSON_OPTION}

Exit code 1 when anything differs, or when there is no GPU to align.`,
  async run(args) {
    const { values, positionals } = parse(args, { align: { type: 'boolean' }, exhaustive: { type: 'boolean' }, json: { type: 'boolean' } });
    if (positionals.length > 0) throw new UsageError(`expected no file, got ${positionals[0]}`);
    if (values.exhaustive && !values.align) throw new UsageError('--exhaustive expected --align with it');
    const machine = await examine();
    if (!values.json) print(machine);
    const problem = problemOf(machine);
    const found: Findings =
      values.align && problem === undefined ? await align(machine, values.exhaustive ?? false, values.json ? () => {} : printCase) : { ...machine, ok: problem === undefined, problem };
    if (values.json) console.log(JSON.stringify(found));
    else if (found.problem !== undefined) console.error(`fp8-kv doctor: ${found.problem}`);
    else if (found.align) console.log(`all ${found.align.length} cases agree: the GPU computes what WebAssembly does`);
    return found.ok ? 0 : 1;
  },
};
