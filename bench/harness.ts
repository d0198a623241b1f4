/** What every bench gives: figures, each with its build and threads; a table of them on the screen, and all of it to run.ts. */
import Benchmark from 'benchmark';
import type { SimdBuild } from '../src/wasm/features.js';
import { options } from './options.js';
import { median, type Times } from './race.js';
import { table } from './table.js';

/** Who was measured. */
export interface Contestant {
  readonly name: string;
  readonly build: SimdBuild;
  readonly threads: number;
}

/** What follows from a median, each in the unit that its name states. */
export type Values = Readonly<Record<string, number>>;

export interface Figure extends Contestant {
  /** Seconds of one run. */
  readonly median: number;
  readonly min: number;
  readonly runs: number;
  readonly values: Values;
}

/** Figures that stand in one table. */
export interface Section {
  readonly title: string;
  readonly figures: readonly Figure[];
}

interface Report {
  readonly question: string;
  readonly sections: readonly Section[];
}

/** @param times milliseconds, ascending */
export function figureOf({ name, build, threads }: Contestant, times: Times, values: (seconds: number) => Values): Figure {
  const seconds = median(times) / 1000;
  return { name, build, threads, median: seconds, min: times[0] / 1000, runs: times.length, values: values(seconds) };
}

/** Times a synchronous `run` by itself, with the package `benchmark`: at least 30 samples. Nothing that a ratio is made of: see race.ts. */
export function time(contestant: Contestant, values: (seconds: number) => Values, run: () => void): Figure {
  const benchmark = new Benchmark(contestant.name, run, { minSamples: 30, minTime: 0.02, maxTime: 1 });
  benchmark.run({ async: false });
  if (benchmark.error) throw benchmark.error as unknown as Error;
  return figureOf(contestant, benchmark.stats.sample.map((seconds) => seconds * 1000).sort((a, b) => a - b), values);
}

const digits = (x: number): string => (Math.abs(x) >= 1000 ? x.toFixed(0) : x.toPrecision(3));

function tableOf({ figures }: Section, markdown: boolean): string {
  const names = [...new Set(figures.flatMap(({ values }) => Object.keys(values)))];
  const head = ['', 'build', 'threads', ...names, 'median, ms', 'min, ms', 'runs'];
  const row = ({ name, build, threads, values, median: middle, min, runs }: Figure): string[] => [
    name, build, `${threads}`, ...names.map((value) => (value in values ? digits(values[value]) : '–')), digits(middle * 1000), digits(min * 1000), `${runs}`,
  ];
  return table(head, figures.map(row), markdown);
}

/** Prints the figures of one bench, and hands them to run.ts. */
export function report(question: string, sections: readonly Section[]): void {
  const { markdown } = options();
  console.log(`\n${markdown ? '### ' : ''}${question}`);
  for (const section of sections) console.log(`\n${markdown ? '#### ' : ''}${section.title}\n${markdown ? '\n' : ''}${tableOf(section, markdown)}`);
  process.send?.({ question, sections } satisfies Report);
}
