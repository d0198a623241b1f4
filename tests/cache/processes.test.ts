/** What one process has computed, another finds: through files, and through a real Redis server. */
import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createStorage, type Driver } from 'unstorage';
import redisDriver from 'unstorage/drivers/redis';
import { equal, is, match, ok } from 'uvu/assert';
import { unstoragePages, wasmBackend, type RawStorage } from '../../src/index.js';
import { suite } from '../suite.js';
import type { PromptReport, PromptTask } from './prompt.fixture.js';
import { assertHoldsIds, feed, idsFrom, prefixCache, prompted, warningsOf } from './prompts.js';

const fixture = fileURLToPath(new URL('prompt.fixture.ts', import.meta.url));

/** Another process answers a prompt. */
async function run(task: PromptTask): Promise<PromptReport> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', fixture, JSON.stringify(task)], { encoding: 'utf8' });
  return JSON.parse(stdout) as PromptReport;
}

/** The common beginning of the demo's prompts fills 13 pages of 16. */
const PAGES = 13;

async function assertFoundByAnother(where: Pick<PromptTask, 'folder' | 'socket'>): Promise<void> {
  const alone = await run({ prompt: 1, stores: false });
  equal(alone.counters, { hits: 0, misses: PAGES, evictions: 0, stored: 0, fetched: 0 });
  const first = await run({ ...where, prompt: 0, stores: true });
  // 217 tokens of the prompt and 12 more: of full pages, one more than what the prompts share.
  equal(first.counters, { hits: 0, misses: PAGES, evictions: 0, stored: PAGES + 1, fetched: 0 });
  const second = await run({ ...where, prompt: 1, stores: false });
  equal(second.counters, { hits: PAGES, misses: 0, evictions: 0, stored: 0, fetched: PAGES });
  is(alone.computed - second.computed, PAGES * 16, 'nothing is computed for the tokens that were found');
  is(second.logits, alone.logits, 'and all that comes has the same bits');
  ok(first.logits !== alone.logits);
  for (const { warnings } of [alone, first, second]) equal(warnings, []);
}

const folderOf = (name: string): string => mkdtempSync(join(tmpdir(), `fp8-kv-${name}-`));

const files = suite('prefixes of another process');

files('are found in files', async () => {
  const folder = folderOf('pages');
  await assertFoundByAnother({ folder });
  rmSync(folder, { recursive: true });
});

const hasRedis = spawnSync('redis-server', ['--version']).status === 0;
const redis = suite('prefixes in Redis', { skip: hasRedis ? undefined : 'there is no redis-server' });
let folder: string;
let socket: string;
let server: ChildProcess;

async function startServer(): Promise<void> {
  server = spawn('redis-server', ['--port', '0', '--unixsocket', socket, '--dir', folder, '--save', '', '--appendonly', 'no'], { stdio: ['ignore', 'pipe', 'inherit'] });
  for await (const text of server.stdout!) if (/ready to accept connections/i.test(String(text))) break;
}

async function stopServer(): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  server.kill('SIGKILL');
  await once(server, 'exit');
}

redis.before(async () => {
  folder = folderOf('redis');
  socket = join(folder, 'socket');
  await startServer();
});

redis.after(async () => {
  await stopServer();
  rmSync(folder, { recursive: true });
});

redis('are found by another process', () => assertFoundByAnother({ socket }));

redis('are computed while it is down, and stored once it is back', async () => {
  const driver = redisDriver({ path: socket, retryStrategy: () => 20 });
  // What ioredis says of each attempt is not of interest.
  (driver.getInstance!() as NodeJS.EventEmitter).on('error', () => {});
  const storage = createStorage({ driver: driver as Driver });
  const backend = wasmBackend();
  const store = unstoragePages(storage as RawStorage, 'down');
  const cacheOf = () => prefixCache(backend, 8, { prefix: { model: 'stand-in', store, storeTimeout: 1000 } });
  const ids = idsFrom(0, 13);
  const cache = cacheOf();
  const sequence = prompted(cache, ids);
  is(await cache.storePrefix(sequence), 3);

  await stopServer();
  const other = cacheOf();
  const warnings = await warningsOf(async () => {
    const match = await other.matchPrefix(ids);
    is(match.length, 0);
    feed(other, match.sequence, ids);
    assertHoldsIds(backend, other, match.sequence, ids, 'computed instead');
  });
  is(warnings.length, 3);
  match(warnings[0], /^the page store did not give page [\da-f]{64}, which is computed instead: /);
  is((await warningsOf(async () => is(await cache.storePrefix(sequence), 0))).length, 1);

  await startServer();
  // It kept nothing: asked to, the cache puts all there again.
  const after = await warningsOf(async () => {
    while ((await cache.storePrefix(sequence)) === 0);
    is((await cacheOf().matchPrefix(ids)).length, 12);
  });
  ok(after.length < 20, after.join('\n'));
  await storage.dispose();
  backend.dispose();
});
