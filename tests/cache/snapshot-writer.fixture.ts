/**
 * Saves a cache as the documentation says, and kills itself when so many bytes have been written: run by snapshot-killed.test.ts
 * only. `node writer.mjs FILE BYTES`, or `before` or `after` the file gets its name.
 */
import { createWriteStream } from 'node:fs';
import { rename } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { saveSnapshot, wasmBackend } from '../../src/index.js';
import { killedCache } from './snapshot-killed.js';

const [file, at] = process.argv.slice(2);
const die = (): void => void process.kill(process.pid, 'SIGKILL');

const { cache } = killedCache(wasmBackend(), 'new');
const part = createWriteStream(`${file}.part`, { flush: true, highWaterMark: 1000 });

/** Small pieces, so that what has been written may end anywhere. */
async function* untilKilled(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    for (let first = 0; first < chunk.length; first += 997) {
      if (part.bytesWritten >= Number(at)) die();
      yield chunk.subarray(first, first + 997);
    }
  }
}

await pipeline(untilKilled(saveSnapshot(cache)), part);
if (at === 'before') die();
await rename(`${file}.part`, file);
if (at === 'after') die();
