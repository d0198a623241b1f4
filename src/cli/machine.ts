/** What a machine offers, for `doctor`. */
import { cpus } from 'node:os';
import { inOneLine } from '../errors.js';
import { formats } from '../formats.js';
import { openBackend, type BackendChoice } from '../open.js';
import { decode, encode } from '../wasm/codec.js';
import { wasmFeatures, type WasmFeatures } from '../wasm/features.js';
import { adapterName, isSoftware } from '../webgpu/adapter.js';
import { backendOwning, findAdapter, requestDevice } from '../webgpu/open.js';

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

/** The GPU that WebGPU gives, or why there is none of use. */
export interface GpuFacts {
  readonly name?: string;
  readonly driver?: string;
  /** Whether it is the CPU. */
  readonly software?: boolean;
  readonly subgroups?: boolean;
  readonly f16?: boolean;
  /** Bytes of the largest buffer that a layer's pages can have. */
  readonly largestBuffer?: number;
  /** Which kernels it gets. */
  readonly kernels?: string;
  readonly problem?: string;
}

async function examineGpu(): Promise<GpuFacts> {
  const adapter = await findAdapter({}).catch(inOneLine);
  if (typeof adapter === 'string') return { problem: adapter };
  const { info, features, limits } = adapter;
  const facts = {
    name: adapterName(info),
    driver: info.description,
    software: isSoftware(info),
    subgroups: features.has('subgroups'),
    f16: features.has('shader-f16'),
    largestBuffer: Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize),
  };
  try {
    const backend = await backendOwning(await requestDevice(adapter, {}), {});
    backend.dispose();
    return { ...facts, kernels: backend.variant.key };
  } catch (error) {
    return { ...facts, problem: inOneLine(error) };
  }
}

/** What runs this program. Bun and Deno say which Node they are like, too. */
function runtime(): string {
  const { bun, deno } = process.versions;
  return bun ? `Bun ${bun}` : deno ? `Deno ${deno}` : `Node ${process.version}`;
}

export interface Machine {
  readonly machine: { readonly runtime: string; readonly platform: string; readonly cpu: string; readonly cores: number };
  readonly wasm: WasmFeatures;
  readonly gpu: GpuFacts;
  /** What follows is absent where WebAssembly has no SIMD. */
  readonly codec?: { readonly e4m3fn: boolean; readonly e5m2: boolean };
  readonly gigaValuesPerSecond?: { readonly encode: number; readonly decode: number };
  /** What `openBackend` takes, and why. */
  readonly choice?: BackendChoice;
}

export async function examine(): Promise<Machine> {
  const machine = { runtime: runtime(), platform: `${process.platform} ${process.arch}`, cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length };
  const wasm = wasmFeatures();
  const gpu = await examineGpu();
  if (!wasm.simd) return { machine, wasm, gpu };
  const codec = { e4m3fn: codecHolds('e4m3fn'), e5m2: codecHolds('e5m2') };
  const x = Float32Array.from({ length: VALUES }, (_, i) => Math.sin(i) * 10);
  const codes = new Uint8Array(VALUES);
  const gigaValuesPerSecond = {
    encode: throughput(() => encode(x, 'e4m3fn', { out: codes })),
    decode: throughput(() => decode(codes, 'e4m3fn', { out: x })),
  };
  let choice: BackendChoice | undefined;
  const backend = await openBackend({ onChoice: (chosen) => (choice = chosen) });
  backend.dispose();
  return { machine, wasm, gpu, codec, gigaValuesPerSecond, choice };
}
