/** Readers with a fault each, which fuzzing must find. */
import { FormatError } from '../../src/index.js';
import type { Readers } from './reader.js';

const samples = [{ bytes: Uint8Array.from(Buffer.from('{"size":12,"name":"x"}')) }];
const kept: unknown[] = [];
const sizeOf = (bytes: Uint8Array): number => Number(/"size":(\d{1,9})/.exec(Buffer.from(bytes).toString('latin1'))?.[1] ?? 0);

export const readers: Readers = {
  none: {
    samples,
    read: (bytes) => {
      if (bytes[0] !== 0x7b) throw new FormatError('planted', 0, 'the file expected {');
      return bytes.length;
    },
  },
  'an error without a name': { samples, read: (bytes) => JSON.parse(Buffer.from(bytes).toString('latin1')) as unknown },
  'an offset beyond the file': {
    samples,
    read: (bytes) => {
      if (bytes.length < 5) throw new FormatError('planted', 5, 'the file is too short');
    },
  },
  memory: { samples, read: (bytes) => kept.push(new Uint8Array(sizeOf(bytes))) && kept.splice(0).length },
  'a loop without end': {
    samples,
    read: (bytes) => {
      while (sizeOf(bytes) > 1000);
    },
  },
  'another result': { samples, read: () => kept.push(0) },
  'a changed file': { samples, read: (bytes) => bytes.fill(0).length },
};
