/** .npz against archives written by hand, and against hostile ones. */
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { equal, is, throws } from 'uvu/assert';
import { parseNpz } from '../../src/files/npz.js';
import { suite } from '../suite.js';
import { archive, hello } from './archive.js';

const test = suite('files/npz');
const inflate = (bytes: Uint8Array, limit: number): Uint8Array => inflateRawSync(bytes, { maxOutputLength: Math.max(1, limit) });
const read = (bytes: Uint8Array): ReadonlyMap<string, Uint8Array> => parseNpz(bytes, 'evil.npz', inflate);

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
