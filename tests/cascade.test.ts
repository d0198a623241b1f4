import { is, match, not } from 'uvu/assert';
import { attendCascade, wasmBackend, type CascadeCall } from '../src/index.js';
import { assertSameBits } from './bits.js';
import { callOf, fixture } from './fixture.js';
import { random } from './random.js';
import { suite } from './suite.js';

// That it equals plain attention is one of the systems' grids.
const test = suite('attendCascade');
const backend = wasmBackend();

async function prepared(): Promise<CascadeCall> {
  const side = { dtype: 'e4m3fn', granularity: 'tensor' } as const;
  const cache = await fixture(backend, random(1), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [24, 20], k: side, v: side });
  const { blockTable: _, ...call } = callOf(cache, [2, 1], random(2).normals(3 * 8));
  const own = [...cache.blockTable.subarray(4, 6), ...cache.blockTable.subarray(10, 12)];
  return { ...call, sharedBlocks: cache.blockTable.slice(0, 4), sharedLen: 16, blockTable: Int32Array.from(own), seqUsedK: Int32Array.of(8, 4) };
}

test('the result may take the place of q', async () => {
  const call = await prepared();
  const expected = await attendCascade(backend, call);
  const q = (call.q as Float32Array).slice();
  const { out } = await attendCascade(backend, { ...call, q, out: q });
  is(out, q);
  assertSameBits(q, expected.out);
});

test('a prefix without keys changes nothing', async () => {
  const call = await prepared();
  const { sharedBlocks: _blocks, sharedLen: _length, ...own } = call;
  const expected = backend.attend(own);
  const { out, lse } = await attendCascade(backend, { ...call, sharedLen: 0 });
  assertSameBits(out, expected.out);
  assertSameBits(lse, expected.lse);
});

const refused: readonly (readonly [Partial<Record<string, unknown>>, RegExp])[] = [
  [{ windowLeft: 5 }, /"windowLeft" expected to be absent where a prefix is shared: use attend/],
  [{ alibiSlopes: new Float32Array(1) }, /"alibiSlopes" expected to be absent/],
  [{ contextLens: Int32Array.of(8, 4) }, /"contextLens" expected to be absent/],
  [{ outDtype: 'f16', out: undefined }, /"outDtype" expected f32 where a prefix is shared, as states are merged in f32, got "f16"/],
  [{ outDtype: 'f16', out: new Uint16Array(3 * 8) }, /"outDtype" expected f32 where a prefix is shared/],
  [{ blockTable: undefined }, /"blockTable" expected an Int32Array, got undefined/],
  [{ kDescale: Float32Array.of(1, 1) }, /"kDescale" expected one number where a prefix is shared/],
  [{ seqUsedK: Int32Array.of(1, 4) }, /"seqUsedK\[0\]" expected at least the 2 new tokens of the sequence, got 1/],
  [{ sharedLen: 17 }, /"sharedLen" expected an integer from 0 to 16, got number 17/],
  [{ sharedBlocks: Int32Array.of(0, 1, 2, 99) }, /"blockTable" expected a page from 0 to/],
  [{ sharedBlocks: [0] }, /"sharedBlocks" expected an Int32Array, got Array/],
];

test('what a shared prefix cannot have is refused by name, and nothing is written', async () => {
  const call = await prepared();
  for (const [change, pattern] of refused) {
    const out = new Float32Array(3 * 8).fill(7);
    const error = await attendCascade(backend, { ...call, out, ...change } as CascadeCall).then(() => undefined, (reason: Error) => reason);
    not.type(error, 'undefined');
    match(error!.message, pattern);
    assertSameBits(out, new Float32Array(3 * 8).fill(7));
  }
});
