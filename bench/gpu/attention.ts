/** Attention over each cache format, raced against each other and against a copy: what gpu-decode and gpu-prefill ask. */
import type { Format } from '../../src/formats.js';
import type { WebgpuPages } from '../../src/webgpu/pages.js';
import type { RecordAttendCall } from '../../src/webgpu/record.js';
import type { TimedWork } from '../../src/webgpu/timing.js';
import { formats } from '../attention.js';
import { normals, SEED } from '../inputs.js';
import { BLOCK, shuffledBlocks } from '../pages.js';
import { flops } from '../shapes.js';
import { gbPerSecond, median, openCopy, raceOnGpu, timeValues, type Copy, type GpuBench, type GpuSection } from './bench.js';
import { bufferOf, emptyBuffer, readFloats } from './buffers.js';
import { bytesPerKey, fillPages, layoutOf, uniqueTokens, type Tokens } from './cache.js';
import { assertPlausible, plainAttention } from './reference.js';
import type { GpuCase } from './shapes.js';
import type { BenchedVariant } from './variants.js';

interface Racer {
  readonly format: Format;
  /** As many of the case's sequences as the device can bind. */
  readonly sequences: number;
  readonly work: TimedWork;
  readonly pages: WebgpuPages;
  readonly buffers: readonly GPUBuffer[];
}

/** The most sequences whose keys lie in one buffer: all, or a half, a quarter …; 0 where not even one does. */
function sequencesThatFit(bench: GpuBench, { shape, sequences, keys }: GpuCase, format: Format): number {
  const { maxBufferSize, maxStorageBufferBindingSize } = bench.device.limits;
  const bytes = (count: number): number => count * Math.ceil(keys / BLOCK) * layoutOf(shape, format).bytes;
  let fit = sequences;
  while (fit > 0 && bytes(fit) > Math.min(maxBufferSize, maxStorageBufferBindingSize)) fit >>= 1;
  return fit;
}

/** A decode step finds its tables on the GPU, where an engine keeps them; those of a prompt come from the host with the call. */
function tablesOf(device: GPUDevice, { keys, tokens }: GpuCase, sequences: number, blockTable: Int32Array<ArrayBuffer>) {
  const cuSeqlensQ = Int32Array.from({ length: sequences + 1 }, (_, s) => s * tokens);
  const seqUsedK = new Int32Array(sequences).fill(keys);
  if (tokens > 1) return { tables: { blockTable, cuSeqlensQ, seqUsedK }, buffers: [] };
  const buffers = [blockTable, cuSeqlensQ, seqUsedK].map((table) => bufferOf(device, table));
  const sizes = { sequences, totalQ: sequences, maxBlocks: blockTable.length / sequences, maxSeqlenQ: 1, maxSeqlenK: keys };
  return { tables: { blockTable: buffers[0], cuSeqlensQ: buffers[1], seqUsedK: buffers[2], ...sizes }, buffers };
}

async function prepare(bench: GpuBench, { name, backend }: BenchedVariant, one: GpuCase, tokens: Tokens, format: Format, sequences: number): Promise<Racer> {
  const { device, timer } = bench;
  const { shape, keys } = one;
  const { queryHeads, headDim } = shape;
  const rows = sequences * one.tokens * queryHeads;
  const blocks = shuffledBlocks(sequences * keys) as Int32Array<ArrayBuffer>;
  const pages = await fillPages(backend, shape, tokens, format, blocks.length);
  const queries = normals(SEED + 2, rows * headDim);
  const [q, out] = [bufferOf(device, queries as Float32Array<ArrayBuffer>), emptyBuffer(device, queries.byteLength)];
  const { tables, buffers } = tablesOf(device, one, sequences, blocks);
  const call: RecordAttendCall = { pages, q, queryHeads, out, ...tables };
  await backend.warm(pages.layout, { queryHeads, maxSeqlenQ: one.tokens });
  const work = await timer.prepare((encoder) => backend.recordAttend(encoder, call));
  // The last row sees all keys of the last sequence; so does the only one of a decode step.
  const [first, head] = [(rows - 1) * headDim, queryHeads - 1];
  const row = { blocks: blocks.subarray(blocks.length - keys / BLOCK), keys, q: queries.subarray(first), head };
  assertPlausible(`${name}, ${format}`, await readFloats(device, out, first, headDim), plainAttention(shape, tokens, row), format, backend.variant.f16);
  return { format, sequences, work, pages, buffers: [q, out, ...buffers] };
}

/** Times of each, and of the copy where there is one. */
async function raceWithCopy({ size }: GpuBench, works: readonly TimedWork[], copy: Copy | undefined): Promise<[times: number[][], copyTimes: number[]]> {
  const times = await raceOnGpu(copy ? [...works, copy.work] : works, size);
  return [times, copy ? times.pop()! : []];
}

async function measure(bench: GpuBench, variant: BenchedVariant, one: GpuCase, tokens: Tokens): Promise<GpuSection> {
  const { shape, sequences, keys } = one;
  const racers: Racer[] = [];
  const notes: string[] = [];
  for (const format of formats) {
    const fit = sequencesThatFit(bench, one, format);
    if (fit < sequences) notes.push(`${format}: ${fit === 0 ? 'left out' : `${fit} sequences instead of ${sequences}`}, as this device binds ${bench.device.limits.maxStorageBufferBindingSize} bytes at most. Ratios are per sequence.`);
    if (fit > 0) racers.push(await prepare(bench, variant, one, tokens, format, fit));
  }
  // A prompt's keys are read again and again: their bytes say nothing of its time.
  const copy = one.tokens === 1 ? await openCopy(bench) : undefined;
  const [times, copyTimes] = await raceWithCopy(bench, racers.map(({ work }) => work), copy);
  const perSequence = racers.map((racer, i) => median(times[i]) / racer.sequences);
  const figures = racers.map(({ format, sequences: taken, work, pages, buffers }, i) => {
    const milliseconds = median(times[i]);
    const read = gbPerSecond(taken * keys * bytesPerKey(pages.layout), milliseconds);
    const operations = taken * flops(shape, keys - one.tokens, one.tokens);
    pages.dispose();
    for (const buffer of buffers) buffer.destroy();
    return {
      name: taken < sequences ? `${format}, ${taken} sequences` : format,
      values: {
        ...(copy ? { 'GB/s': read, 'of copy, %': (100 * read) / copy.gbPerSecond(copyTimes) } : {}),
        'TFLOP/s': operations / milliseconds / 1e9,
        '÷ e4m3fn': perSequence[i] / perSequence[0],
        ...timeValues(times[i], work),
      },
    };
  });
  copy?.destroy();
  return { title: `${shape.name}, ${sequences} × ${one.tokens} on ${keys} keys, ${variant.name}`, figures: [...figures, ...(copy ? [copy.figure(copyTimes)] : [])], notes };
}

export async function raceAttention(bench: GpuBench, cases: readonly GpuCase[]): Promise<GpuSection[]> {
  const sections: GpuSection[] = [];
  for (const one of cases) {
    const tokens = uniqueTokens(one.shape);
    for (const variant of bench.variants) sections.push(await measure(bench, variant, one, tokens));
  }
  return sections;
}
