/** .npz against archives written by hand, and against hostile ones. */
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { equal, is, throws } from 'uvu/assert';
import { parseNpz } from '../../src/files/npz.js';
import { suite } from '../suite.js';

const test = suite('files/npz');
const inflate = (bytes: Uint8Array, limit: number): Uint8Array => inflateRawSync(bytes, { maxOutputLength: Math.max(1, limit) });
const read = (bytes: Uint8Array): ReadonlyMap<string, Uint8Array> => parseNpz(bytes, 'evil.npz', inflate);

interface Fields {
  readonly name?: string;
  readonly method?: number;
  readonly data?: Uint8Array;
  readonly size?: number;
  readonly packed?: number;
  readonly crc?: number;
  readonly flags?: number;
}

/** CRC-32 of 'hello', and of nothing. */
const HELLO_CRC = 0x3610a686;
const hello = Buffer.from('hello');

/** An archive, byte by byte as APPNOTE.TXT says. */
function archive(members: readonly Fields[], count = members.length, comment = ''): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const { name = 'a.npy', method = 0, data = hello, size = 5, packed = data.length, crc = HELLO_CRC, flags = 0 } of members) {
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50, 0);
    local.writeUInt16LE(name.length, 26);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50, 0);
    entry.writeUInt16LE(flags, 8);
    entry.writeUInt16LE(method, 10);
    entry.writeUInt32LE(crc, 16);
    entry.writeUInt32LE(packed, 20);
    entry.writeUInt32LE(size, 24);
    entry.writeUInt16LE(name.length, 28);
    entry.writeUInt32LE(at, 42);
    parts.push(local, Buffer.from(name), Buffer.from(data));
    directory.push(entry, Buffer.from(name));
    at += 30 + name.length + data.length;
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(count, 8);
  end.writeUInt16LE(count, 10);
  end.writeUInt32LE(at, 16);
  end.writeUInt16LE(comment.length, 20);
  return Buffer.concat([...parts, ...directory, end, Buffer.from(comment)]);
}

test('stored and deflated members, with a comment behind', () => {
  const arrays = read(archive([{}, { name: 'b.npy', method: 8, data: deflateRawSync(hello) }], 2, 'by numpy'));
  equal([...arrays].map(([name, bytes]) => [name, Buffer.from(bytes).toString()]), [['a', 'hello'], ['b', 'hello']]);
  is(read(archive([])).size, 0);
});

test('hostile archives are refused', () => {
  const refused = (bytes: Uint8Array, reason: RegExp): void => throws(() => read(bytes), reason);
  refused(new Uint8Array(0), /no end of a directory/);
  refused(archive([{}]).subarray(0, -1), /no end of a directory/);
  refused(archive([{ crc: 1 }]), /another checksum/);
  refused(archive([{ size: 6 }]), /claims 6 bytes, got 5/);
  refused(archive([{ packed: 5000 }]), /claims 5000 bytes, the file has/);
  refused(archive([{ method: 12 }]), /compressed by method 12/);
  refused(archive([{ flags: 1 }]), /is encrypted/);
  refused(archive([{}, {}]), /comes twice/);
  refused(archive([{}], 2), /member 1 expected an entry/);
  refused(archive([{}], 60_000), /claims 60000 members, the limit is 1000/);
  refused(archive([{ method: 8, data: Buffer.from([7, 7, 7]) }]), /cannot be inflated/);
  // A bomb: 100 MB in 100 kB, whatever it says it is.
  const bomb = deflateRawSync(Buffer.alloc(1e8));
  refused(archive([{ method: 8, data: bomb, size: 5 }]), /cannot be inflated to 5 bytes/);
  refused(archive([{ method: 8, data: bomb, size: 2 ** 31 }]), /claims 2147483648 bytes of members, the limit is 1073741824/);
});
