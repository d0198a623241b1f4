import { cpus } from 'node:os';
import { formats } from '../formats.js';
import { decode, encode } from '../wasm/codec.js';
import { wasmFeatures } from '../wasm/features.js';
import { JSON_OPTION, parse, UsageError, type Command } from './command.js';

const VALUES = 1 << 20;
const RUNS = 15;

/** G values/s, the median of some runs after warming up. */
function throughput(work: () => void): number {
  const times = Array.from({ length: RUNS + 5 }, () => {
    const start = performance.now();
    work();
    return performance.now() - start;
  });
  const warm = times.slice(5).sort((a, b) => a - b);
  return Number((VALUES / warm[RUNS >> 1] / 1e6).toFixed(2));
}

/** Every code of a format, decoded and encoded again, is itself; NaN codes are 0x7F. */
function codecHolds(format: 'e4m3fn' | 'e5m2'): boolean {
  const codes = Uint8Array.from({ length: 256 }, (_, code) => code);
  const values = decode(codes, format);
  const again = encode(values, format, { saturate: false });
  return codes.every((code) => (Number.isNaN(values[code]) ? again[code] === 0x7f : again[code] === code)) && encode(Float32Array.of(1e30), format)[0] === encode(Float32Array.of(formats[format].max), format)[0];
}

function examine() {
  const { simd, relaxedSimd, sharedMemory } = wasmFeatures();
  const machine = { node: process.version, platform: `${process.platform} ${process.arch}`, cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length };
  if (!simd) return { ok: false, machine, wasm: { simd, relaxedSimd, sharedMemory } };
  const codec = { e4m3fn: codecHolds('e4m3fn'), e5m2: codecHolds('e5m2') };
  const x = Float32Array.from({ length: VALUES }, (_, i) => Math.sin(i) * 10);
  const codes = new Uint8Array(VALUES);
  const gigaValuesPerSecond = {
    encode: throughput(() => encode(x, 'e4m3fn', { out: codes })),
    decode: throughput(() => decode(codes, 'e4m3fn', { out: x })),
  };
  return { ok: codec.e4m3fn && codec.e5m2, machine, wasm: { simd, relaxedSimd, sharedMemory }, codec, gigaValuesPerSecond };
}

const word = (has: boolean): string => (has ? 'yes' : 'no');

export const doctor: Command = {
  usage: 'doctor',
  summary: 'Says what this machine offers, and whether the codec computes what it must on it.',
  details: JSON_OPTION,
  async run(args) {
    const { values, positionals } = parse(args, { json: { type: 'boolean' } });
    if (positionals.length > 0) throw new UsageError(`expected no file, got ${positionals[0]}`);
    const found = examine();
    if (values.json) {
      console.log(JSON.stringify(found));
      return found.ok ? 0 : 1;
    }
    const { machine, wasm } = found;
    console.log(`machine       ${machine.cpu}, ${machine.cores} cores, ${machine.platform}, Node ${machine.node}`);
    console.log(`WebAssembly   SIMD ${word(wasm.simd)}, relaxed SIMD ${word(wasm.relaxedSimd)}, shared memory ${word(wasm.sharedMemory)}`);
    if (!found.codec) {
      console.error('fp8-kv doctor: WebAssembly SIMD expected, this engine has none');
      return 1;
    }
    console.log(`codec         e4m3fn ${found.codec.e4m3fn ? 'exact' : 'WRONG'}, e5m2 ${found.codec.e5m2 ? 'exact' : 'WRONG'} (all 256 codes there and back)`);
    console.log(`speed         encode ${found.gigaValuesPerSecond.encode}, decode ${found.gigaValuesPerSecond.decode} G values/s (e4m3fn, 1 M values, one core)`);
    console.log(`backend       wasm, ${wasm.relaxedSimd ? 'relaxed' : 'baseline'} build`);
    if (!found.ok) console.error('fp8-kv doctor: the codec gives wrong bytes on this machine');
    return found.ok ? 0 : 1;
  },
};
