/**
 * Runs the tests: `node --import tsx tests/run.ts [--kind test|slow] [--no-browser] [part of a path …]`.
 * Every `*.test.ts`, or every `*.slow.ts`, whose path contains one of the parts; those in a folder `webgpu` once more in Chromium.
 * The last line counts. The work is done by a child: the environment that gives WebGPU its adapter must be there when a process starts.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { adapterEnvironment } from './gpu/environment.js';

/** The last line when no child is left to count. */
function lost(reason: unknown): void {
  console.error(reason);
  console.log('\n0 passed, 1 failed, 0 skipped');
  process.exitCode = 1;
}

try {
  const files = fileURLToPath(new URL('runner/files.ts', import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, files, ...process.argv.slice(2)], { env: await adapterEnvironment(), stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  child.on('error', lost);
  child.on('exit', (code, signal) => {
    if (code === null) lost(`the tests were ended by ${signal}`);
    else process.exitCode = code;
  });
} catch (error) {
  lost(error);
}
