import { createHash } from 'node:crypto';
import { is } from 'uvu/assert';
import { Checksum, digest } from '../src/digest.js';
import { assertSameBits } from './bits.js';
import { random } from './random.js';
import { suite } from './suite.js';

const test = suite('digest');
const MIB = 2 ** 20;
const numbers = random(5);
const bytes = Uint8Array.from({ length: 3 * MIB + 5 }, () => numbers.integer(256));

const sha = (part: Uint8Array): Uint8Array => new Uint8Array(createHash('sha256').update(part).digest());

/** As the class says, of bytes that are all there. */
function expected(all: Uint8Array): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < all.length; at += MIB) pieces.push(sha(all.subarray(at, at + MIB)));
  return sha(Buffer.concat(pieces));
}

/** Runs as where the platform has no digest of its own. */
async function withoutSubtle(body: () => Promise<void>): Promise<void> {
  const own = Object.getOwnPropertyDescriptor(globalThis, 'crypto')!;
  Object.defineProperty(globalThis, 'crypto', { value: {}, configurable: true });
  await body().finally(() => Object.defineProperty(globalThis, 'crypto', own));
}

test('is SHA-256, with or without the platform, of what was there at the time of the call', async () => {
  const shared = new Uint8Array(new SharedArrayBuffer(1000));
  const check = async (): Promise<void> => {
    for (const memory of [new Uint8Array(1000), Buffer.alloc(1000), shared]) {
      memory.set(bytes.subarray(0, 1000));
      const done = digest(memory.subarray(3));
      memory.fill(0);
      assertSameBits(await done, sha(bytes.subarray(3, 1000)));
    }
  };
  await check();
  await withoutSubtle(check);
});

test('a checksum is the same however the bytes come, and begins anew once it was taken', async () => {
  const checksum = new Checksum();
  const part = new Uint8Array(2 * MIB);
  for (const length of [0, 1, MIB - 1, MIB, MIB + 1, bytes.length]) {
    for (const size of [MIB / 4 + 1, MIB, 2 * MIB]) {
      const all = bytes.subarray(0, length);
      for (let at = 0; at < length; at += size) {
        const next = all.subarray(at, at + size);
        part.set(next);
        const taken = checksum.update(part.subarray(0, next.length));
        part.fill(0);
        await taken;
      }
      assertSameBits(await checksum.take(), expected(all), `${length} bytes in parts of ${size}`);
    }
  }
  is(Buffer.from(await checksum.take()).toString('hex'), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
});
