/**
 * `npm run bench [-- BENCH … --all --threads N,N --markdown --json FILE]`: each bench in a process of its own, so that none warms up
 * or slows down another.
 */
import { fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Report } from './harness.js';
import { SEED } from './inputs.js';
import { options } from './options.js';

const benches = ['codec', 'append', 'decode', 'decode-lengths', 'decode-subnormals', 'decode-heap', 'prefill', 'model'];

function run(name: string): Promise<Report> {
  const child = fork(fileURLToPath(new URL(`${name}.ts`, import.meta.url)), process.argv.slice(2));
  return new Promise((resolve, reject) => {
    child.on('message', resolve);
    child.on('exit', (code) => {
      if (code !== 0) reject(new Error(`${name} ended with exit code ${code}`));
    });
  });
}

const { names, json } = options(benches);
const date = new Date().toISOString().slice(0, 10);
const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
console.log(`${date}, ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, seed ${SEED}`);
const reports = [];
for (const name of names.length > 0 ? names : benches) reports.push({ bench: name, ...(await run(name)) });
if (json !== undefined) writeFileSync(json, `${JSON.stringify({ date, machine, seed: SEED, reports }, null, 2)}\n`);
