/** FlashInfer's page tables, and ferrum's scales. */
import { equal, is, throws } from 'uvu/assert';
import { ferrumScaleBits, ferrumScales, fromFlashinferTables, toFlashinferTables } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { definitions, valueOf } from '../reference/codec.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('layouts: tables and scales');
const ints = (...values: readonly number[]): Int32Array => Int32Array.from(values);

test('tables of FlashInfer, there and back', () => {
  // Pages of 4: 6, 0, 4, 1 and 9 keys.
  const ours = { blockTable: ints(7, 2, -1, -1, -1, -1, 0, -1, -1, 5, -1, -1, 1, 3, 4), seqUsedK: ints(6, 0, 4, 1, 9) };
  const theirs = { kvIndptr: ints(0, 2, 2, 3, 4, 7), kvIndices: ints(7, 2, 0, 5, 1, 3, 4), kvLastPageLen: ints(2, 0, 4, 1, 1) };
  equal(toFlashinferTables(ours, 4), theirs);
  equal(fromFlashinferTables(theirs, 4), ours);
  const none = { blockTable: ints(), seqUsedK: ints() };
  equal(toFlashinferTables(none, 4), { kvIndptr: ints(0), kvIndices: ints(), kvLastPageLen: ints() });
  equal(fromFlashinferTables(toFlashinferTables(none, 4), 4), none);
});

test('random tables come back', () => {
  for (let seed = 0; seed < 50; seed++) {
    const numbers = random(seed);
    const [sequences, size] = [1 + numbers.integer(6), 1 + numbers.integer(20)];
    const seqUsedK = Int32Array.from({ length: sequences }, () => numbers.integer(100));
    const maxBlocks = Math.max(...Array.from(seqUsedK, (keys) => Math.ceil(keys / size)));
    const blockTable = Int32Array.from({ length: sequences * maxBlocks }, (_, i) => (i % maxBlocks < Math.ceil(seqUsedK[Math.floor(i / maxBlocks)] / size) ? numbers.integer(1000) : -1));
    equal(fromFlashinferTables(toFlashinferTables({ blockTable, seqUsedK }, size), size), { blockTable, seqUsedK }, `seed ${seed}`);
  }
});

test('tables that do not fit are refused by name', () => {
  throws(() => toFlashinferTables({ blockTable: ints(0, 1, 2), seqUsedK: ints(1, 1) }, 4), /"blockTable" expected 2 rows of equal length, got length 3/);
  throws(() => toFlashinferTables({ blockTable: ints(0), seqUsedK: ints(5) }, 4), /"seqUsedK\[0\]" expected an integer from 0 to 4, got number 5/);
  throws(() => toFlashinferTables({ blockTable: ints(-1, 3), seqUsedK: ints(8) }, 4), /"blockTable\[0\]" expected an integer of at least 0, got number -1/);
  throws(() => toFlashinferTables({ blockTable: [0] as never, seqUsedK: ints(1) }, 4), /"blockTable" expected an Int32Array, got Array/);
  throws(() => toFlashinferTables({ blockTable: ints(0), seqUsedK: ints(1) }, 0), /"blockSize" expected/);
  const theirs = { kvIndptr: ints(0, 2), kvIndices: ints(4, 5), kvLastPageLen: ints(3) };
  throws(() => fromFlashinferTables({ ...theirs, kvIndptr: ints(0) }, 4), /"kvIndptr" expected 2 entries, got 1/);
  throws(() => fromFlashinferTables({ ...theirs, kvIndptr: ints(1, 2) }, 4), /"kvIndptr\[0\]" expected an integer from 0 to 0, got number 1/);
  throws(() => fromFlashinferTables({ ...theirs, kvIndptr: ints(0, 3) }, 4), /"kvIndptr\[1\]" expected an integer from 0 to 2, got number 3/);
  throws(() => fromFlashinferTables({ kvIndptr: ints(0, 2, 1), kvIndices: ints(4, 5), kvLastPageLen: ints(3, 1) }, 4), /"kvIndptr\[2\]" expected an integer from 2 to 2, got number 1/);
  throws(() => fromFlashinferTables({ ...theirs, kvIndices: ints(4, -5) }, 4), /"kvIndices\[1\]" expected an integer of at least 0, got number -5/);
  throws(() => fromFlashinferTables({ ...theirs, kvLastPageLen: ints(5) }, 4), /"kvLastPageLen\[0\]" expected an integer from 1 to 4, got number 5/);
  throws(() => fromFlashinferTables({ ...theirs, kvLastPageLen: ints(0) }, 4), /"kvLastPageLen\[0\]" expected an integer from 1 to 4, got number 0/);
  throws(() => fromFlashinferTables({ kvIndptr: ints(0, 0), kvIndices: ints(), kvLastPageLen: ints(2) }, 4), /"kvLastPageLen\[0\]" expected an integer from 0 to 0, got number 2/);
  throws(() => fromFlashinferTables({ ...theirs, kvIndices: new Uint32Array(2) as never }, 4), /"kvIndices" expected an Int32Array, got Uint32Array/);
});

test('all 65,536 scales of f16 are widened exactly, and come back', () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const scales = ferrumScales(halves);
  for (const [i, scale] of scales.entries()) is(Object.is(scale, valueOf(i, definitions.f16)), true, `0x${i.toString(16)}`);
  assertSameBits(ferrumScaleBits(scales), halves);
});

test('a scale that f16 does not have is refused', () => {
  for (const scale of [1 + 2 ** -11, 65536, 2 ** -25, 1.5 * 2 ** -24, -1e30, 2 ** -140]) {
    throws(() => ferrumScaleBits(Float32Array.of(1, scale)), `"scales[1]" expected a number of f16, got ${Math.fround(scale)}`);
  }
  const narrowNaN = new Float32Array(Uint32Array.of(0x7f800001).buffer);
  throws(() => ferrumScaleBits(narrowNaN), '"scales[0]" expected a number of f16, got NaN');
  throws(() => ferrumScaleBits(new Float64Array(1) as never), /"scales" expected a Float32Array, got Float64Array/);
  throws(() => ferrumScales(new Float32Array(1) as never), /"bits" expected a Uint16Array \(f16\), got Float32Array/);
});
