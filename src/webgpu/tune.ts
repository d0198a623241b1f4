/** Which tuning suits an adapter: the few candidates are timed against each other, on work as models have it. */
import { describe } from '../formats.js';
import { pageLayout } from '../layout.js';
import { checkOptions, type OptionNames } from '../options.js';
import { isSoftware } from './adapter.js';
import { WebgpuBackend } from './backend.js';
import { usage } from './constants.js';
import { checkAdapterOptions, findAdapter, requestDevice, type RequestWebgpuOptions } from './open.js';
import type { WebgpuPages } from './pages.js';
import { subgroupSize, unpacksF16 } from './probe.js';
import { GpuTimer, type TimedWork } from './timing.js';
import { defaultTuning, tuningChoices, type Tuning } from './tuning.js';
import { variantOf } from './variant.js';

/** The adapter and the model that a tuning is for. */
export interface TuneOptions extends Pick<RequestWebgpuOptions, 'gpu' | 'powerPreference'> {
  /** Heads and dimensions of the model. Default: 32 query heads, 8 KV heads, 128 dimensions. */
  readonly queryHeads?: number;
  /** Default 8. */
  readonly kvHeads?: number;
  /** Default 128. */
  readonly headDim?: number;
  /** Called with each candidate's time. */
  readonly onCandidate?: (candidate: TunedCandidate) => void;
}

const optionNames: OptionNames<TuneOptions> = { gpu: true, powerPreference: true, queryHeads: true, kvHeads: true, headDim: true, onCandidate: true };

/** A way to share out the work, and how long it took. */
export interface TunedCandidate {
  /** Which kernel was timed. */
  readonly kernel: 'decode' | 'prefill';
  /** What it was tried with. */
  readonly tuning: Tuning;
  /** Milliseconds of one call, the median. */
  readonly milliseconds: number;
}

const ROUNDS = 5;
const SAMPLE_MS = 20;
/** A candidate must be faster by this to take the place of what is there: noise is not to decide. */
const GAIN = 0.97;
const BLOCK = 16;
/** Tokens that are quantized; the cache is full of copies of their pages. */
const UNIQUE_TOKENS = 1024;

interface Work {
  readonly kernel: TunedCandidate['kernel'];
  readonly sequences: number;
  /** New tokens and keys of each. */
  readonly tokens: number;
  readonly keys: number;
}

const works: { readonly [size in 'small' | 'large']: readonly [Work, Work] } = {
  small: [{ kernel: 'decode', sequences: 1, tokens: 1, keys: 2048 }, { kernel: 'prefill', sequences: 1, tokens: 64, keys: 128 }],
  large: [{ kernel: 'decode', sequences: 8, tokens: 1, keys: 8192 }, { kernel: 'prefill', sequences: 1, tokens: 2048, keys: 2048 }],
};

/** Numbers that differ; whoever times needs no better ones. */
const noise = (length: number): Float32Array => Float32Array.from({ length }, (_, i) => Math.sin(i * 12.9898) * 2);

const median = (times: readonly number[]): number => [...times].sort((a, b) => a - b)[times.length >> 1];

interface Shape {
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** One candidate, ready to be timed. */
interface Prepared {
  readonly work: TimedWork;
  end(): void;
}

async function fill(backend: WebgpuBackend, { kvHeads, headDim }: Shape, count: number): Promise<WebgpuPages> {
  const pages = backend.createPages(pageLayout({ kvHeads, headDim, blockSize: BLOCK }), count);
  const tokens = Math.min(UNIQUE_TOKENS, count * BLOCK);
  const values = noise(tokens * kvHeads * headDim);
  await backend.append({ pages, key: values, value: values, slotMapping: Int32Array.from({ length: tokens }, (_, i) => i) });
  const unique = tokens / BLOCK;
  const to = Int32Array.from({ length: count - unique }, (_, i) => unique + i);
  pages.copyPages(to.map((page) => page % unique), to);
  return pages;
}

async function prepare(timer: GpuTimer, backend: WebgpuBackend, shape: Shape, { sequences, tokens, keys }: Work): Promise<Prepared> {
  const { device } = backend;
  const { queryHeads, headDim } = shape;
  const blocks = keys / BLOCK;
  const pages = await fill(backend, shape, sequences * blocks);
  const queries = noise(sequences * tokens * queryHeads * headDim) as Float32Array<ArrayBuffer>;
  const buffer = (): GPUBuffer => device.createBuffer({ label: 'fp8-kv tune', size: queries.byteLength, usage: usage.storage | usage.copyDst });
  const [q, out] = [buffer(), buffer()];
  device.queue.writeBuffer(q, 0, queries);
  const call = {
    pages, q, out, queryHeads,
    blockTable: Int32Array.from({ length: sequences * blocks }, (_, i) => i),
    cuSeqlensQ: Int32Array.from({ length: sequences + 1 }, (_, s) => s * tokens),
    seqUsedK: new Int32Array(sequences).fill(keys),
  };
  await backend.warm(pages.layout, { queryHeads, maxSeqlenQ: tokens });
  const work = await timer.prepare((encoder) => backend.recordAttend(encoder, call), { sampleMs: SAMPLE_MS });
  return {
    work,
    end() {
      q.destroy();
      out.destroy();
      backend.dispose();
    },
  };
}

/** Times candidates in turns, and gives the median of each. */
async function race(prepared: readonly Prepared[]): Promise<number[]> {
  const times: number[][] = prepared.map(() => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, { work }] of prepared.entries()) times[i].push(await work.sample());
  }
  return times.map(median);
}

/**
 * Finds the tuning for the adapter that `requestWebgpuBackend` takes; a few seconds on a GPU. It says how kernels share out
 * their work, so that results stay what they are.
 * @returns what `requestWebgpuBackend({ tuning })` takes, there and wherever the same adapter is
 * @throws Error where there is no GPU; UnsupportedDeviceError; RangeError where heads or dimensions do not fit
 */
export async function tuneWebgpu(options: TuneOptions = {}): Promise<Tuning> {
  checkOptions(options, 'options', optionNames);
  checkAdapterOptions(options);
  const { queryHeads = 32, kvHeads = 8, headDim = 128, onCandidate } = options;
  if (onCandidate !== undefined && typeof onCandidate !== 'function') throw new TypeError(`"onCandidate" expected a function, got ${describe(onCandidate)}`);
  pageLayout({ kvHeads, headDim, blockSize: BLOCK });
  const adapter = await findAdapter(options);
  if (typeof adapter === 'string') throw new Error(adapter);
  const device = await requestDevice(adapter, { optionalFeatures: ['subgroups'] }, ['timestamp-query']);
  try {
    return await tuneDevice(device, adapter.info, { queryHeads, kvHeads, headDim }, onCandidate);
  } finally {
    device.destroy();
  }
}

async function tuneDevice(device: GPUDevice, info: GPUAdapterInfo, shape: Shape, onCandidate: TuneOptions['onCandidate']): Promise<Tuning> {
  const facts = { subgroupSize: await subgroupSize(device), f16: false, unpacksF16: await unpacksF16(device) };
  const timer = await GpuTimer.open(device);
  const [decode, prefill] = works[isSoftware(info) ? 'small' : 'large'];
  const backendOf = (tuning: Tuning): WebgpuBackend => new WebgpuBackend(device, variantOf({ ...facts, subgroupSize: tuning.subgroups ? facts.subgroupSize : 0 }, tuning), false);
  let best = defaultTuning(info);

  /** Puts the fastest in the place of `best`, which is the first. */
  const choose = async (work: Work, others: readonly Tuning[]): Promise<void> => {
    const candidates = [best, ...others];
    const prepared: Prepared[] = [];
    try {
      for (const tuning of candidates) prepared.push(await prepare(timer, backendOf(tuning), shape, work));
      const times = await race(prepared);
      for (const [i, tuning] of candidates.entries()) onCandidate?.({ kernel: work.kernel, tuning, milliseconds: times[i] });
      const fastest = times.indexOf(Math.min(...times));
      if (times[fastest] < times[0] * GAIN) best = candidates[fastest];
    } finally {
      for (const each of prepared) each.end();
    }
  };

  const { loadsAhead, cutsPerWorkgroup, rowsPerWorkgroup } = tuningChoices;
  const decoding = (changes: Partial<Tuning['decode']>): Tuning => ({ ...best, decode: { ...best.decode, ...changes } });
  await choose(decode, loadsAhead.filter((each) => each !== best.decode.loadsAhead).map((each) => decoding({ loadsAhead: each })));
  if (facts.subgroupSize > 0) await choose(decode, [{ ...best, subgroups: !best.subgroups }]);
  await choose(decode, cutsPerWorkgroup.filter((each) => each !== best.decode.cutsPerWorkgroup).map((each) => decoding({ cutsPerWorkgroup: each })));
  await choose(prefill, rowsPerWorkgroup.filter((each) => each !== best.prefill.rowsPerWorkgroup).map((each) => ({ ...best, prefill: { rowsPerWorkgroup: each } })));
  timer.destroy();
  return best;
}
