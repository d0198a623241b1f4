/** Answers one question, in a process of its own, which run.ts starts: what V8 learns from one question must not change the next. */
import { builds } from '../../tests/builds.js';
import { ceiling, plainBuilds } from '../plain/module.js';
import { median, race, type Times } from '../race.js';
import { flops } from '../shapes.js';
import { deviation } from './check.js';
import { loadRuntime, onnxruntime, store } from './onnxruntime.js';
import { ours } from './ours.js';
import { plain } from './plain.js';
import { inputsOf, questions, type Contestant, type Question } from './question.js';

export interface Figure {
  readonly name: string;
  readonly cache: string;
  /** Seconds. */
  readonly median: number;
  readonly min: number;
  readonly runs: number;
  /** From the float64 answer on what the cache holds; absent for the ceilings. */
  readonly deviation?: number;
}

export interface Measured {
  /** Of ours. */
  readonly builds: readonly string[];
  readonly figures: readonly Figure[];
  readonly ceilings: readonly Figure[];
}

async function contestants(question: Question): Promise<Contestant[]> {
  const inputs = inputsOf(question);
  const web = await loadRuntime('onnxruntime-web');
  const node = await loadRuntime('onnxruntime-node');
  const stored = (['f32', 'f16', 'int8'] as const).map((cache) => store(question, inputs, cache));
  const all = builds.flatMap((build) => (['e4m3fn', 'f32'] as const).map((dtype) => ours(question, inputs, build, dtype)));
  all.push(...plainBuilds().map((build) => plain(question, inputs, build)));
  if (question.tokens === 1) all.push(await onnxruntime('onnxruntime-web', web, question, stored[0], ['output', 'present_key', 'present_value']));
  for (const one of stored) all.push(await onnxruntime('onnxruntime-web', web, question, one));
  for (const one of stored) all.push(await onnxruntime('onnxruntime-node', node, question, one));
  return all;
}

const figure = (name: string, cache: string, times: Times): Figure => ({ name, cache, median: median(times) / 1000, min: times[0] / 1000, runs: times.length });

async function measure(question: Question): Promise<Measured> {
  const all = await contestants(question);
  const bare = plainBuilds().map((build) => ({ name: build.name, run: ceiling(build, flops(question, question.past, question.tokens)) }));
  const times = await race([...all.map((one) => () => one.run()), ...bare.map(({ run }) => run)], question.rounds);
  return {
    builds,
    figures: all.map((one, i) => ({ ...figure(one.name, one.cache, times[i]), deviation: deviation(question, one) })),
    ceilings: bare.map(({ name }, i) => figure(`f32x4 multiply-add, ${name}`, '–', times[all.length + i])),
  };
}

process.send!(await measure(questions.find(({ name }) => name === process.argv[2])!), () => process.exit());
