/**
 * .npz: a zip archive of .npy files, stored or deflated (numpy/lib/npyio.py; APPNOTE.TXT 6.3.10 of PKWARE). Read by its central
 * directory; zip64, encryption and archives of several disks are refused.
 */
import { FormatError } from '../errors.js';
import { quote } from './tensor.js';

/** The most that all members may hold: what a file of a few bytes claims costs nothing. */
const MAX_BYTES = 2 ** 30;
const MAX_MEMBERS = 1000;

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
const END_BYTES = 22;
const ENTRY_BYTES = 46;
const LOCAL_BYTES = 30;
const STORED = 0;
const DEFLATED = 8;
const ENCRYPTED = 1;

/** Inflates raw deflate data, and gives no more than `limit` bytes: it throws where there would be more. */
export type Inflate = (deflated: Uint8Array, limit: number) => Uint8Array;

interface Member {
  readonly name: string;
  readonly method: number;
  readonly packed: number;
  readonly size: number;
  readonly checksum: number;
  /** Of its local header. */
  readonly at: number;
  /** Of its entry in the directory. */
  readonly entryAt: number;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Where the directory ends: a comment may follow. */
function findEnd(view: DataView, file: string): number {
  for (let at = view.byteLength - END_BYTES; at >= Math.max(0, view.byteLength - END_BYTES - 0xffff); at--) {
    if (view.getUint32(at, true) === END && at + END_BYTES + view.getUint16(at + 20, true) === view.byteLength) return at;
  }
  throw new FormatError(file, 0, 'an .npz file is a zip archive, this one has no end of a directory');
}

function readDirectory(view: DataView, file: string): Member[] {
  const end = findEnd(view, file);
  const count = view.getUint16(end + 10, true);
  if (view.getUint16(end + 4, true) !== 0 || view.getUint16(end + 8, true) !== count) throw new FormatError(file, end, 'archives of several disks are not supported');
  if (count > MAX_MEMBERS) throw new FormatError(file, end + 10, `the archive claims ${count} members, the limit is ${MAX_MEMBERS}`);
  const members: Member[] = [];
  let at = view.getUint32(end + 16, true);
  for (let i = 0; i < count; i++) {
    if (at + ENTRY_BYTES > end || view.getUint32(at, true) !== ENTRY) throw new FormatError(file, Math.min(at, end), `member ${i} expected an entry in the directory`);
    const nameBytes = view.getUint16(at + 28, true);
    const next = at + ENTRY_BYTES + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    if (next > end) throw new FormatError(file, at, `member ${i} goes on behind the directory`);
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at + ENTRY_BYTES, nameBytes));
    if (view.getUint16(at + 8, true) & ENCRYPTED) throw new FormatError(file, at, `${quote(name)} is encrypted`);
    members.push({
      name, method: view.getUint16(at + 10, true), checksum: view.getUint32(at + 16, true), packed: view.getUint32(at + 20, true),
      size: view.getUint32(at + 24, true), at: view.getUint32(at + 42, true), entryAt: at,
    });
    at = next;
  }
  return members;
}

/** The bytes of a member as they lie in the file. */
function packedBytes(view: DataView, { name, at, packed }: Member, file: string): Uint8Array {
  if (at + LOCAL_BYTES > view.byteLength || view.getUint32(at, true) !== LOCAL) throw new FormatError(file, Math.min(at, view.byteLength), `${quote(name)} expected a header of its own`);
  const start = at + LOCAL_BYTES + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
  if (start + packed > view.byteLength) throw new FormatError(file, at, `${quote(name)} claims ${packed} bytes, the file has ${Math.max(0, view.byteLength - start)}`);
  return new Uint8Array(view.buffer, view.byteOffset + start, packed);
}

function unpack(view: DataView, member: Member, file: string, inflate: Inflate): Uint8Array {
  const { name, method, size, checksum, entryAt } = member;
  if (method !== STORED && method !== DEFLATED) throw new FormatError(file, entryAt, `${quote(name)} is compressed by method ${method}, expected stored or deflated`);
  const packed = packedBytes(view, member, file);
  let bytes: Uint8Array;
  try {
    // A copy, so that numbers lie aligned.
    bytes = method === STORED ? packed.slice() : inflate(packed, size);
  } catch (error) {
    throw new FormatError(file, entryAt, `${quote(name)} cannot be inflated to ${size} bytes: ${(error as Error).message}`);
  }
  if (bytes.length !== size) throw new FormatError(file, entryAt, `${quote(name)} claims ${size} bytes, got ${bytes.length}`);
  if (crc32(bytes) !== checksum) throw new FormatError(file, entryAt, `${quote(name)} has another checksum than the directory says`);
  return bytes;
}

/**
 * Reads the members of an .npz file: bytes of .npy files, by the names that numpy gives them.
 * @param file what to call the file in errors
 * @throws FormatError with the byte at which the file breaks the format, or for members that claim over 1 GiB
 */
export function parseNpz(bytes: Uint8Array, file: string, inflate: Inflate): ReadonlyMap<string, Uint8Array> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const members = readDirectory(view, file);
  const total = members.reduce((sum, { size }) => sum + size, 0);
  if (total > MAX_BYTES) throw new FormatError(file, 0, `the archive claims ${total} bytes of members, the limit is ${MAX_BYTES}`);
  const arrays = new Map<string, Uint8Array>();
  for (const member of members) {
    const name = member.name.replace(/\.npy$/, '');
    if (arrays.has(name)) throw new FormatError(file, member.entryAt, `${quote(member.name)} comes twice`);
    arrays.set(name, unpack(view, member, file, inflate));
  }
  return arrays;
}
