/**
 * Chromium, and SwiftShader, the Vulkan driver without a GPU, out of the npm package `@sparticuz/chromium`. Not with that package's
 * own API: it unpacks into the system's temporary folder, and takes what already lies there.
 */
import { createReadStream, createWriteStream, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { createBrotliDecompress } from 'node:zlib';
import { extract } from 'tar-fs';

const { resolve } = createRequire(import.meta.url);

function isInstalled(): boolean {
  try {
    return resolve('@sparticuz/chromium') !== '';
  } catch {
    return false;
  }
}

/** Whether the package is there, and what it brings runs on this machine. */
export const packaged = process.platform === 'linux' && process.arch === 'x64' && isInstalled();

/**
 * The folder of `chromium`, SwiftShader with its loader, and in `lib/` what else Chromium needs of a bare system. They lie together
 * because Chromium looks for SwiftShader beside itself. Unpacked once; two processes may do so at the same time.
 */
export async function unpackedFolder(): Promise<string> {
  const root = join(resolve('@sparticuz/chromium'), '..', '..', '..');
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const parent = fileURLToPath(new URL('../../node_modules/.cache/fp8-kv', import.meta.url));
  const folder = join(parent, `chromium-${version}`);
  if (existsSync(folder)) return folder;
  mkdirSync(parent, { recursive: true });
  const unfinished = mkdtempSync(join(parent, 'unfinished-'));
  const unpack = (name: string, to: NodeJS.WritableStream) => pipeline(createReadStream(join(root, 'bin', `${name}.br`)), createBrotliDecompress(), to);
  await Promise.all([
    unpack('chromium', createWriteStream(join(unfinished, 'chromium'), { mode: 0o755 })),
    unpack('swiftshader.tar', extract(unfinished)),
    unpack('al2023.tar', extract(unfinished)),
  ]);
  try {
    renameSync(unfinished, folder);
  } catch (error) {
    rmSync(unfinished, { recursive: true });
    // Another process was faster: its folder is as good.
    if (!existsSync(folder)) throw error;
  }
  return folder;
}
