/** Timing with the package `benchmark`: medians, minima, and a table; `--json FILE` keeps the figures and where they come from. */
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import Benchmark from 'benchmark';

export const SEED = 20_26;

export interface Figure {
  readonly name: string;
  /** Seconds per run. */
  readonly median: number;
  readonly min: number;
  readonly runs: number;
  /** How much work one run is, and of what: the table shows work per second. */
  readonly work: number;
  readonly unit: string;
}

const { values: options } = parseArgs({ options: { json: { type: 'string' } }, allowPositionals: true });

/** Times `run` after warming up: at least 30 samples. */
export function time(name: string, work: number, unit: string, run: () => void): Figure {
  const benchmark = new Benchmark(name, run, { minSamples: 30, maxTime: 1.5 });
  benchmark.run({ async: false });
  if (benchmark.error) throw benchmark.error as unknown as Error;
  const samples = [...benchmark.stats.sample].sort((a, b) => a - b);
  return { name, median: samples[samples.length >> 1], min: samples[0], runs: samples.length, work, unit };
}

const milliseconds = (seconds: number): string => (seconds * 1000).toPrecision(3);

/** Prints the figures of one bench file, and stores them where the command line asks for it. */
export function report(question: string, figures: readonly Figure[]): void {
  console.log(`\n${question}`);
  const width = Math.max(...figures.map(({ name }) => name.length));
  for (const { name, median, min, runs, work, unit } of figures) {
    console.log(`  ${name.padEnd(width)}  ${(work / median).toPrecision(3).padStart(6)} ${unit}/s   median ${milliseconds(median)} ms, min ${milliseconds(min)} ms, ${runs} runs`);
  }
  if (options.json === undefined) return;
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version, threads: 1, seed: SEED };
  writeFileSync(options.json, `${JSON.stringify({ question, date: new Date().toISOString().slice(0, 10), machine, figures }, null, 2)}\n`);
}
