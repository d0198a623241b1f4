/** Chromium without a window, from npm. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { chosenAdapter, withLibraries } from '../gpu/environment.js';
import { unpackedFolder } from '../gpu/unpack.js';

const flags = [
  // As root, as in most containers, it starts in no other way.
  '--no-sandbox',
  // Without it there is no adapter on a CPU.
  '--enable-unsafe-webgpu',
  // As in tests/gpu/adapter.ts.
  '--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension',
  chosenAdapter() === 'swiftshader' ? '--use-webgpu-adapter=swiftshader' : '--enable-features=Vulkan',
  // It ends with the runner, however that ends: a pipe breaks off.
  '--remote-debugging-pipe',
  // Containers have little of that memory.
  '--disable-dev-shm-usage',
  // It asks nothing of the net.
  '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic',
];

export interface Chromium {
  /** Settled when it ends: with its output. */
  readonly ended: Promise<string>;
  /** Its DevTools: takes and gives messages that end with a zero byte. */
  readonly pipe: { readonly input: Writable; readonly output: Readable };
  /** Ends it, and removes its profile. */
  close(): Promise<void>;
}

/** Opens a page, in a profile of its own. */
export async function openChromium(url: string, more: readonly string[] = []): Promise<Chromium> {
  const folder = await unpackedFolder();
  const profile = mkdtempSync(join(tmpdir(), 'fp8-kv-chromium-'));
  const child = spawn(join(folder, 'chromium'), [...flags, ...more, `--user-data-dir=${profile}`, url], {
    env: { ...process.env, ...withLibraries(join(folder, 'lib')) },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe', 'pipe'],
  });
  const output: Buffer[] = [];
  for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (chunk: Buffer) => output.push(chunk));
  const ended = once(child, 'close').then(
    ([code, signal]) => `${Buffer.concat(output)}Chromium ended: ${signal ?? code}`,
    (error) => String(error),
  );
  const close = async (): Promise<void> => {
    (child.stdio[3] as Writable).end();
    const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
    await ended;
    clearTimeout(timer);
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { ended, pipe: { input: child.stdio[3] as Writable, output: child.stdio[4] as Readable }, close };
}
