/** Zip archives written by hand. */
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
export const hello = Buffer.from('hello');

/** An archive, byte by byte as APPNOTE.TXT says. */
export function archive(members: readonly Fields[], count = members.length, comment = ''): Buffer {
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
