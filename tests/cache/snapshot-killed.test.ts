/** A writer that is killed never leaves a file that restores wrongly. */
import { spawnSync } from 'node:child_process';
import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { equal, is, ok } from 'uvu/assert';
import { FormatError, loadSnapshot, wasmBackend } from '../../src/index.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { killedCache } from './snapshot-killed.js';
import { assertSameContents, load, save } from './snapshots.js';

const test = suite('cache, snapshots whose writer is killed');
const backend = wasmBackend();
const SEED = 50;

const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-snapshot-'));
const writer = join(folder, 'writer.mjs');
const file = join(folder, 'cache.safetensors');
test.before(async () => {
  await build({ entryPoints: [fileURLToPath(new URL('snapshot-writer.fixture.ts', import.meta.url))], bundle: true, format: 'esm', platform: 'node', outfile: writer, logLevel: 'silent' });
});
test.after(() => rmSync(folder, { recursive: true }));

const [old, next] = [killedCache(backend, 'old'), killedCache(backend, 'new')];
const [oldBytes, newBytes] = [await save(old.cache), await save(next.cache)];

/** Restores a file: it is one of the two, byte for byte, or refused. */
async function stateOf(name: string): Promise<'old' | 'new' | 'refused' | 'none'> {
  if (!existsSync(name)) return 'none';
  const { cache } = killedCache(backend, 'empty');
  const sequences = await loadSnapshot(cache, createReadStream(name), { name }).catch((error: unknown) => error);
  cache.dispose();
  if (sequences instanceof FormatError) return 'refused';
  ok(Array.isArray(sequences), String(sequences));
  const bytes = readFileSync(name);
  ok(bytes.equals(sequences.length === 1 ? oldBytes : newBytes), `${name} was restored, and is neither of the two`);
  return sequences.length === 1 ? 'old' : 'new';
}

/** @returns what the file, and the temporary one, then hold */
async function killed(at: number | 'before' | 'after'): Promise<readonly string[]> {
  writeFileSync(file, oldBytes);
  rmSync(`${file}.part`, { force: true });
  const { signal, stderr } = spawnSync(process.execPath, [writer, file, String(at)], { encoding: 'utf8' });
  is(signal, 'SIGKILL', `${at}: ${stderr}`);
  return [await stateOf(file), await stateOf(`${file}.part`)];
}

test('the two states come back', async () => {
  for (const [state, bytes] of [[old, oldBytes], [next, newBytes]] as const) {
    const { cache } = killedCache(backend, 'empty');
    await assertSameContents(state.cache, state.sequences, cache, await load(cache, bytes), 'restored');
    cache.dispose();
  }
});

test(`killed at 50 random bytes (seed ${SEED}), the old file is whole and the new one is refused`, async () => {
  const numbers = random(SEED);
  for (let i = 0; i < 50; i++) {
    const at = numbers.integer(newBytes.length - 2000);
    equal(await killed(at), ['old', 'refused'], `byte ${at}`);
  }
}, { seconds: 120 });

test('killed behind the last byte, one file or the other is whole', async () => {
  equal(await killed('before'), ['old', 'new']);
  equal(await killed('after'), ['new', 'none']);
});
