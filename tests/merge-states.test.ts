import { is, ok, throws } from 'uvu/assert';
import { mergeStates, wasmBackend } from '../src/index.js';
import { attentionError } from '../src/files/compare.js';
import { assertSameBits } from './bits.js';
import { callOf, fixture } from './fixture.js';
import { random } from './random.js';
import { suite } from './suite.js';

const test = suite('mergeStates');

test('parts of the keys, merged in any order, are all keys', async () => {
  const backend = wasmBackend();
  const cache = await fixture(backend, random(1), { kvHeads: 2, headDim: 16, blockSize: 8, kvLens: [96] });
  const q = random(2).normals(3 * 4 * 16);
  const call = { ...callOf(cache, [3], q), causal: false };
  const whole = backend.attend(call);
  // The sink is in the last part only.
  const sinks = Float32Array.of(1, -2, 0.5, 3);
  const withSinks = backend.attend({ ...call, sinks });
  const parts = [[0, 40], [40, 24], [64, 32]].map(([first, keys], i) => ({
    ...call, blockTable: cache.blockTable.slice(first / 8, (first + keys) / 8), seqUsedK: Int32Array.of(keys), sinks: i === 2 ? sinks : undefined,
  }));
  const [a, b, c] = parts.map((part) => backend.attend({ ...part, sinks: undefined }));
  for (const merged of [mergeStates(...pair(mergeStates(...pair(a, b)), c)), mergeStates(...pair(c, mergeStates(...pair(b, a))))]) {
    const error = attentionError(merged, whole, 16);
    ok(error.out < 1e-6 && error.lse < 1e-6, `out ${error.out}, lse ${error.lse}`);
  }
  const last = backend.attend(parts[2]);
  const error = attentionError(mergeStates(...pair(mergeStates(...pair(a, b)), last)), withSinks, 16);
  ok(error.out < 1e-6 && error.lse < 1e-6, `with sinks: out ${error.out}, lse ${error.lse}`);
});

type State = { out: Float32Array; lse: Float32Array };
const pair = (a: State, b: State) => [a.out, a.lse, b.out, b.lse] as const;

test('a part that saw nothing leaves the other as it is, and NaN stays NaN', () => {
  const nothing = { out: new Float32Array(4), lse: Float32Array.of(-Infinity, -Infinity) };
  const some = { out: Float32Array.of(1, -0, 3e38, 2 ** -149), lse: Float32Array.of(700, -700) };
  for (const merged of [mergeStates(...pair(nothing, some)), mergeStates(...pair(some, nothing))]) {
    assertSameBits(merged.out, some.out);
    assertSameBits(merged.lse, some.lse);
  }
  const neither = mergeStates(...pair(nothing, nothing));
  assertSameBits(neither.out, nothing.out);
  assertSameBits(neither.lse, nothing.lse);
  const broken = { out: Float32Array.of(NaN, NaN, 1, 1), lse: Float32Array.of(NaN, 0) };
  const { out, lse } = mergeStates(...pair(broken, some));
  ok(Number.isNaN(out[0]) && Number.isNaN(out[1]) && Number.isNaN(lse[0]) && !Number.isNaN(lse[1]));
});

test('logits of any size: nothing overflows, and far apart the larger counts', () => {
  const a = { out: Float32Array.of(2), lse: Float32Array.of(3e38) };
  const b = { out: Float32Array.of(-2), lse: Float32Array.of(-3e38) };
  const { out, lse } = mergeStates(...pair(a, b));
  is(out[0], 2);
  is(lse[0], a.lse[0]);
  const even = mergeStates(a.out, a.lse, b.out, a.lse);
  is(even.out[0], 0);
});

test('results may go where a part lies', () => {
  const a = { out: random(1).normals(8), lse: random(2).normals(2) };
  const b = { out: random(3).normals(8), lse: random(4).normals(2) };
  const expected = mergeStates(...pair(a, b));
  const result = mergeStates(...pair(a, b), { out: b.out, lse: b.lse });
  is(result.out, b.out);
  assertSameBits(b.out, expected.out);
  assertSameBits(b.lse, expected.lse);
});

test('bad arguments are refused by name', () => {
  const f = (length: number) => new Float32Array(length);
  throws(() => mergeStates(f(4), f(3), f(4), f(3)), /"outA" expected a multiple of the 3 numbers of "lseA", got length 4/);
  throws(() => mergeStates(f(6), f(3), f(4), f(3)), /"outB" expected length 6, got 4/);
  throws(() => mergeStates(f(6), f(3), f(6), f(2)), /"lseB" expected length 3, got 2/);
  throws(() => mergeStates(f(6), f(3), f(6), new Float64Array(3) as unknown as Float32Array), /"lseB" expected a Float32Array, got Float64Array/);
  throws(() => mergeStates(undefined as unknown as Float32Array, f(3), f(6), f(3)), /"outA" expected a Float32Array, got undefined/);
  throws(() => mergeStates(f(6), f(3), f(6), f(3), { out: f(5) }), /"out" expected length 6, got 5/);
  throws(() => mergeStates(f(6), f(0), f(6), f(0)), /"outA" expected length 0, got 6/);
});
