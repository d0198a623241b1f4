/** How many values per second does append quantize on the GPU, for each cache format and dtype of what comes in? */
import { wasmBackend, type FloatArray, type FloatDtype, type NhdTensors } from '../src/index.js';
import type { TimedWork } from '../src/webgpu/timing.js';
import type { WebgpuPages } from '../src/webgpu/pages.js';
import { bytesOf, floatDtypes, type Format } from '../src/formats.js';
import { formats } from './attention.js';
import { gbPerSecond, median, openBench, openCopy, raceOnGpu, reportGpu, timeValues, type GpuSection } from './gpu/bench.js';
import { bufferOf } from './gpu/buffers.js';
import { bytesPerKey, layoutOf } from './gpu/cache.js';
import { normals, SEED } from './inputs.js';
import { shuffledBlocks, slotsOf } from './pages.js';
import { llama3 } from './shapes.js';

/** A decode step of a batch, and a long prompt. */
const LENGTHS = { small: [32, 512], large: [32, 16_384] } as const;
const dtypes = ['f32', 'bf16'] as const satisfies readonly FloatDtype[];
/** Of the pages, from the first on. */
const CHECKED_PAGES = 2;

const bench = await openBench();
/** Append is the same in all variants. */
const { backend } = bench.variants[0];
const cpu = wasmBackend();
const { kvHeads, headDim } = llama3;

function inputOf(seed: number, dtype: FloatDtype, length: number): FloatArray {
  const x = normals(seed, length);
  // A bf16 number is the upper half of an f32 one.
  return dtype === 'f32' ? x : Uint16Array.from(new Uint32Array(x.buffer), (bits) => bits >>> 16);
}

function assertSame(name: string, actual: NhdTensors, expected: NhdTensors): void {
  for (const [tensor, values] of Object.entries(expected) as [keyof NhdTensors, ArrayBufferView | undefined][]) {
    if (!values) continue;
    const codes = bytesOf(values);
    const at = bytesOf(actual[tensor]!).findIndex((byte, i) => byte !== codes[i]);
    if (at >= 0) throw new Error(`append of ${name} computes wrongly: byte ${at} of ${tensor} is not the CPU's`);
  }
}

interface Racer {
  readonly name: string;
  /** Bytes that are read and written. */
  readonly bytes: number;
  readonly work: TimedWork;
  readonly pages: WebgpuPages;
}

async function prepare(tokens: number, dtype: FloatDtype, format: Format): Promise<Racer> {
  const blocks = shuffledBlocks(tokens);
  const layout = layoutOf(llama3, format);
  const slotMapping = slotsOf(blocks, tokens);
  const [key, value] = [1, 2].map((n) => inputOf(SEED + n, dtype, tokens * kvHeads * headDim));
  const [keys, values, slots] = [key, value, slotMapping].map((input) => bufferOf(bench.device, input as FloatArray & ArrayBufferView<ArrayBuffer>));
  const pages = backend.createPages(layout, blocks.length);
  await backend.warm(layout, { maxSeqlenQ: 1 });
  const work = await bench.timer.prepare((encoder) => backend.recordAppend(encoder, { pages, key: keys, value: values, dtype, slotMapping: slots, tokens }));
  const name = `${format} from ${dtype}`;
  const cpuPages = cpu.createPages(layout, blocks.length);
  cpu.append({ pages: cpuPages, key, value, dtype, slotMapping });
  assertSame(name, await pages.export(0, CHECKED_PAGES), cpuPages.export(0, CHECKED_PAGES));
  cpuPages.dispose();
  return { name, bytes: tokens * (2 * kvHeads * headDim * floatDtypes[dtype].bytes + 4 + bytesPerKey(pages.layout)), work, pages };
}

async function measure(tokens: number): Promise<GpuSection> {
  const racers: Racer[] = [];
  for (const dtype of dtypes) for (const format of formats) racers.push(await prepare(tokens, dtype, format));
  const copy = await openCopy(bench);
  const times = await raceOnGpu([...racers.map(({ work }) => work), copy.work], bench.size);
  const copyTimes = times.at(-1)!;
  const figures = racers.map(({ name, bytes, work, pages }, i) => {
    const milliseconds = median(times[i]);
    const moved = gbPerSecond(bytes, milliseconds);
    pages.dispose();
    return {
      name,
      values: { 'G values/s': (2 * tokens * kvHeads * headDim) / milliseconds / 1e6, 'GB/s': moved, 'of copy, %': (100 * moved) / copy.gbPerSecond(copyTimes), ...timeValues(times[i], work) },
    };
  });
  copy.destroy();
  return { title: `${tokens} tokens, ${kvHeads} heads of ${headDim}`, figures: [...figures, copy.figure(copyTimes)] };
}

const sections: GpuSection[] = [];
for (const tokens of LENGTHS[bench.size]) sections.push(await measure(tokens));
reportGpu(bench, 'GPU append: values per second', sections);
