/** A cache of more than 1 GiB, through a file, with only a few of its layers in memory beside it. */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { is, ok } from 'uvu/assert';
import { KvCache, loadSnapshot, saveSnapshot, wasmBackend, type Sequence } from '../../src/index.js';
import { collectGarbage } from '../gc.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('cache, snapshot of 1 GiB');
const shape = { layers: 32, queryHeads: 8, kvHeads: 8, headDim: 128, capacity: 16384 } as const;
const TOKENS = 16300;
const MIB = 2 ** 20;
/** Keys, values and scales of a layer. */
const LAYER_BYTES = TOKENS * 2 * 8 * (128 + 4);

const cacheOf = (): KvCache => new KvCache(wasmBackend(), shape);

function fill(cache: KvCache): Sequence {
  const sequence = cache.createSequence();
  const x = random(3).normals(TOKENS * 1024);
  const step = cache.begin([{ sequence, tokens: TOKENS }]);
  for (let layer = 0; layer < shape.layers; layer++) {
    // Another one for each layer, at no cost.
    x[layer] = layer;
    void step.append(layer, x, x);
  }
  step.commit();
  return sequence;
}

/** The chunks, and the most bytes of arrays beside the heap that were seen between them. */
async function* watched(chunks: AsyncIterable<Uint8Array>, report: (most: number) => void): AsyncGenerator<Uint8Array> {
  collectGarbage();
  const before = process.memoryUsage().arrayBuffers;
  let most = 0;
  let bytes = 0;
  for await (const chunk of chunks) {
    yield chunk;
    bytes += chunk.length;
    // What nobody has any more is not what is needed, and often collected late.
    if (bytes > LAYER_BYTES / 4) {
      collectGarbage();
      bytes = 0;
    }
    most = Math.max(most, process.memoryUsage().arrayBuffers - before);
  }
  report(most);
}

async function hashOf(cache: KvCache): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of saveSnapshot(cache)) hash.update(chunk);
  return hash.digest('hex');
}

test('goes through a file, and takes a few layers of memory', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-snapshot-'));
  const file = join(folder, 'cache.safetensors');
  try {
    const cache = cacheOf();
    const sequence = fill(cache);
    const expected = await hashOf(cache);
    const grown = { save: 0, load: 0 };
    await pipeline(watched(saveSnapshot(cache), (most) => (grown.save = most)), createWriteStream(file, { flush: true }));
    ok(statSync(file).size > 2 ** 30);
    sequence.free();
    // Into the same cache: a second one would take as much memory again.
    const [loaded] = await loadSnapshot(cache, watched(createReadStream(file, { highWaterMark: MIB }), (most) => (grown.load = most)));
    is(loaded.length, TOKENS);
    is(await hashOf(cache), expected);
    for (const [what, bytes] of Object.entries(grown)) ok(bytes < 5 * LAYER_BYTES, `${what}: ${bytes} bytes, ${bytes / LAYER_BYTES} layers`);
    cache.dispose();
  } finally {
    rmSync(folder, { recursive: true });
  }
}, { seconds: 300 });
