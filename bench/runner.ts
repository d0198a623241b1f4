/** Runs benches, each in a process of its own, so that none warms up or slows down another. */
import { fork } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { adapterEnvironment } from '../tests/gpu/environment.js';
import { SEED } from './inputs.js';
import { options } from './options.js';

const gpuBenches = ['gpu-copy', 'gpu-decode', 'gpu-prefill', 'gpu-append', 'gpu-layers'] as const;
const cpuBenches = ['codec', 'append', 'decode', 'decode-lengths', 'decode-subnormals', 'decode-heap', 'prefill', 'model'] as const;
export const benches = { cpu: cpuBenches, gpu: gpuBenches };

/** The adapter must be in the environment when a process starts. Drivers that keep compiled kernels on disk would compile none a second time. */
async function gpuEnvironment(): Promise<NodeJS.ProcessEnv> {
  return { ...(await adapterEnvironment()), __GL_SHADER_DISK_CACHE: '0', MESA_SHADER_CACHE_DISABLE: 'true' };
}

/** What a bench hands in: an object with the question and what was found. */
async function run(name: string): Promise<object> {
  const env = gpuBenches.some((gpu) => gpu === name) ? await gpuEnvironment() : process.env;
  const child = fork(fileURLToPath(new URL(`${name}.ts`, import.meta.url)), process.argv.slice(2), { env });
  return new Promise((resolve, reject) => {
    child.on('message', resolve);
    child.on('exit', (code, signal) => {
      if (code !== 0) reject(new Error(`${name} ended with ${code === null ? signal : `exit code ${code}`}`));
    });
  });
}

/**
 * Runs the benches that the command line names.
 * @param byDefault those that run where it names none
 */
export async function runBenches(byDefault: readonly string[]): Promise<void> {
  const { names, json } = options([...cpuBenches, ...gpuBenches]);
  const date = new Date().toISOString().slice(0, 10);
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
  console.log(`${date}, ${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, seed ${SEED}`);
  const reports = [];
  for (const name of names.length > 0 ? names : byDefault) {
    reports.push({ bench: name, ...(await run(name)) });
    // After each: what a later bench is refused does not take the earlier ones along.
    if (json !== undefined) writeFileSync(json, `${JSON.stringify({ date, machine, seed: SEED, reports }, null, 2)}\n`);
  }
}
