/** What every GPU bench opens first, and hands in at the end. */
import { GpuTimer, type TimedWork } from '../../src/webgpu/timing.js';
import { options } from '../options.js';
import { table } from '../table.js';
import { emptyBuffer, noiseBuffer } from './buffers.js';
import { openDevice, type AdapterFacts } from './device.js';
import { copyBytes, rounds, type Size } from './shapes.js';
import { openVariants, optionalFeatures, type BenchedVariant } from './variants.js';

export interface GpuBench {
  readonly device: GPUDevice;
  readonly adapter: AdapterFacts;
  readonly timer: GpuTimer;
  readonly variants: readonly BenchedVariant[];
  readonly size: Size;
}

/** What is measured, each in the unit that its name states. */
type Values = Readonly<Record<string, number>>;

interface GpuFigure {
  readonly name: string;
  readonly values: Values;
}

/** Figures that stand in one table. */
export interface GpuSection {
  readonly title: string;
  readonly figures: readonly GpuFigure[];
  /** What could not be measured, and why. */
  readonly notes?: readonly string[];
}

export async function openBench(): Promise<GpuBench> {
  const { small, large, features } = options();
  const { device, adapter } = await openDevice(optionalFeatures);
  const timer = await GpuTimer.open(device);
  const variants = await openVariants(device, features);
  const size = small || (adapter.software && !large) ? 'small' : 'large';
  const { vendor, architecture, device: name, description } = adapter;
  console.log(`\n${[vendor, architecture, name, description].filter(Boolean).join(', ')}; features: ${[...device.features].filter((feature) => optionalFeatures.some((name) => name === feature)).join(' ') || 'none of use'}; times by ${timer.source}; ${size} shapes`);
  return { device, adapter, timer, variants, size };
}

/** Milliseconds of one run, ascending. */
type Times = readonly number[];

export const median = (times: Times): number => times[times.length >> 1];

/** Whose run takes so long gives a sample in every other round only. */
const SLOW_MS = 1000;

/** Everyone gives a sample in each round, in an order that rotates: a device that slows down slows all. */
export async function raceOnGpu(works: readonly TimedWork[], size: Size): Promise<number[][]> {
  const times = works.map((): number[] => []);
  for (let round = 0; round < rounds[size]; round++) {
    for (let i = 0; i < works.length; i++) {
      const racer = (round + i) % works.length;
      if (round % 2 === 0 || median(times[racer]) < SLOW_MS) times[racer].push(await works[racer].sample());
    }
  }
  return times.map((each) => each.sort((a, b) => a - b));
}

/** What every figure that was raced has. */
export const timeValues = (times: Times, { repeats }: TimedWork): Values => ({ 'median, ms': median(times), 'min, ms': times[0], runs: times.length * repeats });

export const gbPerSecond = (bytes: number, milliseconds: number): number => bytes / milliseconds / 1e6;

/** A copy from one buffer into another, in the race. */
export interface Copy {
  readonly work: TimedWork;
  /** It reads and writes: both count. */
  gbPerSecond(times: Times): number;
  figure(times: Times): GpuFigure;
  destroy(): void;
}

export async function openCopy({ device, timer, size }: GpuBench): Promise<Copy> {
  const bytes = Math.min(copyBytes[size], device.limits.maxBufferSize);
  const [from, to] = [noiseBuffer(device, bytes), emptyBuffer(device, bytes)];
  const work = await timer.prepare((encoder) => encoder.copyBufferToBuffer(from, 0, to, 0, bytes));
  const speed = (times: Times): number => gbPerSecond(2 * bytes, median(times));
  return {
    work,
    gbPerSecond: speed,
    figure: (times) => ({ name: 'copy', values: { 'GB/s': speed(times), 'of copy, %': 100, ...timeValues(times, work) } }),
    destroy: () => {
      from.destroy();
      to.destroy();
    },
  };
}

const digits = (name: string, x: number): string => (name === 'runs' || Math.abs(x) >= 1000 ? x.toFixed(0) : x.toPrecision(3));

function tableOf({ figures }: GpuSection, markdown: boolean): string {
  const names = [...new Set(figures.flatMap(({ values }) => Object.keys(values)))];
  return table(['', ...names], figures.map(({ name, values }) => [name, ...names.map((value) => (value in values ? digits(value, values[value]) : '–'))]), markdown, 1);
}

/** Prints the figures of one bench, hands them to the runner, and ends the device. */
export function reportGpu({ device, adapter, timer, size }: GpuBench, question: string, sections: readonly GpuSection[]): void {
  const { markdown } = options();
  console.log(`\n${markdown ? '### ' : ''}${question}`);
  for (const section of sections) {
    console.log(`\n${markdown ? '#### ' : ''}${section.title}\n${markdown ? '\n' : ''}${tableOf(section, markdown)}`);
    for (const note of section.notes ?? []) console.log(`\n${note}`);
  }
  process.send?.({ question, adapter, times: timer.source, size, sections });
  timer.destroy();
  device.destroy();
}
