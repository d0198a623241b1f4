/**
 * `npm run bench:peers [-- QUESTION …] [--json FILE] [--markdown]`: attention of ours, of onnxruntime and of a plain loop, on the
 * same inputs, one thread each, in alternation. Ratios are of medians.
 */
import { execFileSync, fork } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SEED } from '../inputs.js';
import { compilePlain } from '../plain/module.js';
import { flops } from '../shapes.js';
import { table } from '../table.js';
import type { Figure, Measured } from './measure.js';
import { questions, type Question } from './question.js';

const here = fileURLToPath(new URL('.', import.meta.url));
const { values: options, positionals } = parseArgs({ options: { json: { type: 'string' }, markdown: { type: 'boolean', default: false } }, allowPositionals: true });
const peers = (JSON.parse(readFileSync(`${here}package.json`, 'utf8')) as { dependencies: Record<string, string> }).dependencies;

function installPeers(): void {
  const installed = (name: string): string | undefined => {
    const file = `${here}node_modules/${name}/package.json`;
    return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version : undefined;
  };
  if (Object.entries(peers).every(([name, version]) => installed(name) === version)) return;
  execFileSync('npm', ['ci'], { cwd: here, stdio: 'inherit', shell: process.platform === 'win32' });
}

function measure({ name }: Question): Promise<Measured> {
  const child = fork(`${here}measure.ts`, [name]);
  return new Promise((resolve, reject) => {
    child.on('message', resolve);
    child.on('exit', (code) => {
      if (code !== 0) reject(new Error(`measuring ${name} ended with exit code ${code}`));
    });
  });
}

const milliseconds = (seconds: number): string => (seconds * 1000).toFixed(seconds < 0.1 ? 2 : 0);

function print(question: Question, { figures, ceilings }: Measured): void {
  const { name, past, tokens, queryHeads, kvHeads, headDim } = question;
  const best = Math.min(...ceilings.map((one) => one.median));
  const mine = figures.filter((one) => one.name.startsWith('fp8-kv') && one.cache === 'e4m3fn');
  const row = (one: Figure): string[] => [
    one.name,
    one.cache,
    milliseconds(one.median),
    milliseconds(one.min),
    `${one.runs}`,
    ...mine.map(({ median }) => `${(one.median / median).toFixed(2)}×`),
    `${Math.round((100 * best) / one.median)} %`,
    one.deviation === undefined ? '–' : one.deviation.toExponential(0),
  ];
  const head = ['', 'cache', 'median, ms', 'min, ms', 'runs', ...mine.map((one) => `÷ ${one.name} ${one.cache}`), 'of ceiling', 'off by'];
  const title = `${name}: ${tokens === 1 ? 'a token' : `${tokens} tokens`} on ${past}, ${queryHeads}/${kvHeads} heads of ${headDim}; ceiling ${(flops(question, past, tokens) / best / 1e9).toFixed(0)} GFLOP/s`;
  console.log(`\n${options.markdown ? '#### ' : ''}${title}\n${options.markdown ? '\n' : ''}${table(head, [...figures, ...ceilings].map(row), options.markdown)}`);
}

const unknown = positionals.find((name) => !questions.some((question) => question.name === name));
if (unknown !== undefined) {
  console.error(`no question "${unknown}": expected ${questions.map(({ name }) => name).join(', ')}`);
  process.exit(2);
}
installPeers();
compilePlain();
const date = new Date().toISOString().slice(0, 10);
const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version, threads: 1, seed: SEED, peers };
console.log(`${date}, ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, one thread, seed ${SEED}, ${Object.entries(peers).map((peer) => peer.join(' ')).join(', ')}`);
const results = [];
for (const question of questions.filter(({ name }) => positionals.length === 0 || positionals.includes(name))) {
  const measured = await measure(question);
  print(question, measured);
  results.push({ ...question, ...measured });
}
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify({ question: 'Attention: ours and theirs', date, machine, results }, null, 2)}\n`);
