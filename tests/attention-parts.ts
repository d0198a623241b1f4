/** Keys that lie in several places: attention over each of them alone, and over all, against slow float64, on every backend. */
import { equal, is, ok, throws } from 'uvu/assert';
import type { AttendCall, AttendResult, AttentionOptions, Backend, PageOrder, SideOptions } from '../src/index.js';
import { attendParts } from '../src/attend-parts.js';
import { ATTENTION_BOUND, attentionError } from '../src/files/compare.js';
import { assertSameBits } from './bits.js';
import { callOf, fixture, type Fixture } from './fixture.js';
import { random, type Random } from './random.js';
import { referenceAttention } from './reference/attention.js';
import type { Suite } from './suite.js';

/** What differs between places: how keys are stored, and in pages of how many tokens. */
interface Place {
  readonly blockSize: number;
  readonly k: SideOptions;
  readonly v: SideOptions;
  readonly order?: PageOrder;
}

const e4m3fn: SideOptions = { dtype: 'e4m3fn' };
const f32: SideOptions = { dtype: 'f32' };
const places: readonly Place[] = [{ blockSize: 16, k: e4m3fn, v: e4m3fn }, { blockSize: 5, k: f32, v: f32, order: 'NHD' }, { blockSize: 16, k: e4m3fn, v: e4m3fn }];

const [kvHeads, group, headDim] = [2, 3, 24];
const queryHeads = kvHeads * group;
const rowFloats = queryHeads * headDim;

/** Decode and prefill, one key and many, fewer keys than rows, and none at all. */
const kvLens = [300, 90, 1, 40, 3, 0];
const qLens = [1, 40, 1, 20, 25, 2];

/** Keys of each sequence, and which of them lie in each of the places, one after the other. */
export interface SplitCache {
  readonly caches: readonly Fixture[];
  /** The first key of each sequence in each place. */
  readonly first: readonly (readonly number[])[];
  readonly q: Float32Array;
  /** One call for each place, with what they have in common. */
  calls(attention: AttentionOptions): AttendCall[];
  value(side: 'k' | 'v', sequence: number, j: number, head: number, d: number): number;
}

/** Keys split at random, so that some places have none of a sequence's. */
export async function splitCache(backend: Backend, numbers: Random): Promise<SplitCache> {
  const ends = kvLens.map((length) => [...[numbers.integer(length + 1), numbers.integer(length + 1)].sort((a, b) => a - b), length]);
  const first = places.map((_, place) => ends.map((end) => (place === 0 ? 0 : end[place - 1])));
  const caches: Fixture[] = [];
  for (const [i, place] of places.entries()) caches.push(await fixture(backend, numbers, { ...place, kvHeads, headDim, kvLens: ends.map((end, s) => end[i] - first[i][s]) }));
  const q = numbers.normals(qLens.reduce((a, b) => a + b) * rowFloats);
  return {
    caches, first, q,
    calls: ({ sinks, ...attention }) => caches.map((cache, place): AttendCall => {
      const call = { ...callOf(cache, qLens, q), ...attention };
      // A sink counts once; and in the last place a sequence's keys go to its end.
      return place === caches.length - 1 ? { ...call, sinks } : { ...call, contextLens: Int32Array.from(kvLens, (length, s) => length - first[place][s]) };
    }),
    value: (side, s, j, head, d) => {
      const place = first.filter((begin) => begin[s] <= j).length - 1;
      return caches[place].valueAt(side, s, j - first[place][s], head, d);
    },
  };
}

const rowsOf = ({ out, lse }: AttendResult, first: number, rows: number): { out: Float32Array; lse: Float32Array } => ({
  out: out.subarray(first * rowFloats, (first + rows) * rowFloats), lse: lse.subarray(first * queryHeads, (first + rows) * queryHeads),
});

/** Holds each sequence's rows against float64 over its keys begin … end − 1, of which the rows are the last. */
export function assertReference(split: SplitCache, actual: AttendResult, attention: AttentionOptions, range: (sequence: number) => { begin: number; end: number }, what: string): void {
  let row = 0;
  for (const [s, rows] of qLens.entries()) {
    const { begin, end } = range(s);
    const expected = referenceAttention({
      ...attention, q: split.q.subarray(row * rowFloats, (row + rows) * rowFloats), queryHeads, kvHeads, headDim, kvLen: end - begin, contextLen: kvLens[s] - begin,
      key: (j, head, d) => split.value('k', s, begin + j, head, d), value: (j, head, d) => split.value('v', s, begin + j, head, d),
    });
    const error = attentionError(rowsOf(actual, row, rows), { out: Float32Array.from(expected.out), lse: Float32Array.from(expected.lse) }, headDim);
    ok(error.out <= ATTENTION_BOUND && error.lse <= ATTENTION_BOUND, `${what}, sequence ${s}: out ${error.out}, lse ${error.lse}`);
    row += rows;
  }
}

export const attentions: readonly AttentionOptions[] = [
  {},
  { windowLeft: 30, sinks: Float32Array.of(1, -2, 0.5, 3, 0, -1) },
  { causal: false, windowLeft: 3, windowRight: 4 },
  { causal: false, softcap: 2.5, alibiSlopes: Float32Array.of(0.5, 0.1, -0.01, 0.03, 1, 0) },
  { windowLeft: 100, windowRight: 0x7fffffff, alibiSlopes: Float32Array.of(0.5, 0.1, -0.01, 0.03, 1, 0), sinks: new Float32Array(queryHeads) },
];

/** Of all keys. */
export const wholeRange = (sequence: number): { begin: number; end: number } => ({ begin: 0, end: kvLens[sequence] });

/** @param open gives the backend once the tests run */
export function testAttendParts(test: Suite, open: () => Backend): void {
  for (const [index, attention] of attentions.entries()) {
    test(`keys in three places, merged, against float64: ${JSON.stringify(Object.keys(attention))}`, async () => {
      const split = await splitCache(open(), random(700 + index));
      const parts = split.calls(attention);
      const attending = attendParts(open(), parts);
      is(attending instanceof Promise, !open().synchronous);
      const { out, lse } = await attending;
      assertReference(split, { out, lse }, attention, wholeRange, `seed ${700 + index}`);
      // The result may take the place of q.
      const q = split.q.slice();
      const given = { out: q, lse: new Float32Array(lse.length) };
      const result = await attendParts(open(), parts.map((part) => ({ ...part, ...given, q })));
      is(result.out, q);
      is(result.lse, given.lse);
      assertSameBits(q, out);
      assertSameBits(given.lse, lse);
      for (const { pages } of split.caches) pages.dispose();
    });
  }

  test('one part is attention as it is, also in f16; what is refused in several leaves out as it was', async () => {
    const split = await splitCache(open(), random(710));
    const parts = split.calls({ windowLeft: 20 });
    const half = { ...parts[0], out: undefined, outDtype: 'f16' } as const;
    const expected = await open().attend(half);
    const out = new Uint16Array(expected.out.length);
    is((await attendParts(open(), [{ ...half, out }])).out, out);
    assertSameBits(out, expected.out);
    // Itself, and no copy: of so many fields that would cost a decode step more than all else that it does on the host.
    attendParts({ attend: (call: unknown) => is(call, half) } as unknown as Backend, [half]);
    const results = { out: new Float32Array(out.length).fill(7), lse: new Float32Array(expected.lse.length).fill(7) };
    const refused: readonly (readonly [number, object, RegExp])[] = [
      [0, { outDtype: 'f16' }, /"outDtype" expected f32 where keys lie in 3 places, as states are merged in f32, got f16/],
      [0, { windowLeft: -2 }, /"windowLeft"/],
      [1, { contextLens: Int32Array.of(1) }, /"contextLens" expected one number per sequence/],
      [2, { seqUsedK: Int32Array.of(1) }, /"seqUsedK" expected one number per sequence/],
    ];
    for (const [place, change, message] of refused) {
      const changed = parts.map((part, i) => ({ ...part, ...results, ...(i === place && change) }));
      const error = await (async () => attendParts(open(), changed))().then(() => undefined, (reason: Error) => reason);
      throws(() => { if (error) throw error; }, message);
      ok([...results.out, ...results.lse].every((value) => value === 7));
    }
    for (const { pages } of split.caches) pages.dispose();
  });
}

/** @param open gives the backend once the tests run */
export function testContextLens(test: Suite, open: () => Backend): void {
  for (const [index, attention] of attentions.entries()) {
    test(`the keys of one place against float64, where rows stand behind them, or before: ${JSON.stringify(Object.keys(attention))}`, async () => {
      const split = await splitCache(open(), random(600 + index));
      for (const [place, call] of split.calls(attention).entries()) {
        const begin = (s: number): number => split.first[place][s];
        const end = (s: number): number => begin(s) + split.caches[place].seqUsedK[s];
        const result = await open().attend(call);
        assertReference(split, result, { ...attention, sinks: call.sinks }, (s) => ({ begin: begin(s), end: end(s) }), `seed ${600 + index}, place ${place}`);
      }
      for (const { pages } of split.caches) pages.dispose();
    });
  }

  test('a context as long as the keys changes no bit, and a longer one is a later place', async () => {
    const cache = await fixture(open(), random(610), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [600, 40] });
    for (const rows of [1, 20]) {
      const call = { ...callOf(cache, [rows, rows], random(611).normals(2 * rows * 8)), windowLeft: 25, alibiSlopes: Float32Array.of(0.1) };
      const plain = await open().attend(call);
      const stated = await open().attend({ ...call, contextLens: cache.seqUsedK.slice() });
      assertSameBits(stated.out, plain.out);
      assertSameBits(stated.lse, plain.lse);
      // Pages before the window need not be there, and one that no row sees needs none at all.
      const evicted = cache.blockTable.slice().fill(-1, 0, Math.floor((604 - rows - 25) / 4));
      const later = { ...call, contextLens: Int32Array.of(604, 2 ** 30 - 1) };
      const [whole, part] = [await open().attend(later), await open().attend({ ...later, blockTable: evicted.fill(-1, 150) })];
      assertSameBits(part.out, whole.out);
      for (let row = rows; row < 2 * rows; row++) is(part.lse[row], -Infinity, 'what stands too far behind the keys sees none');
      ok(Number.isFinite(part.lse[0]));
    }
    cache.pages.dispose();
  });

  test('rows before all keys give 0 and −∞, or the sink', async () => {
    for (const rows of [3, 30]) {
      const cache = await fixture(open(), random(620), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [2, 0] });
      const call = { ...callOf(cache, [rows, 2], random(621).normals((rows + 2) * 8)), windowLeft: 6, windowRight: 0, causal: false };
      for (const sinks of [undefined, Float32Array.of(0.25)]) {
        const { out, lse } = await open().attend({ ...call, sinks });
        for (let row = 0; row < rows + 2; row++) {
          if (row === rows - 1 || row === rows - 2) continue;
          is(lse[row], sinks ? 0.25 : -Infinity, `row ${row} of ${rows}`);
          assertSameBits(out.subarray(row * 8, row * 8 + 8), new Float32Array(8), `row ${row} of ${rows}`);
        }
        ok(lse[rows - 1] !== -Infinity && lse[rows - 1] !== 0.25);
      }
      cache.pages.dispose();
    }
  });

  test('contexts that do not fit are refused by name, and nothing is written', async () => {
    const cache = await fixture(open(), random(630), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [5, 6] });
    const call = callOf(cache, [1, 2], random(631).normals(3 * 8));
    const refused: readonly (readonly [unknown, RegExp])[] = [
      [[5, 6], /"contextLens" expected an Int32Array, got Array/],
      [null, /"contextLens" expected an Int32Array, got null/],
      [Int32Array.of(5), /"contextLens" expected one number per sequence \(2\), got 1/],
      [Int32Array.of(5, 6, 7), /"contextLens" expected one number per sequence \(2\), got 3/],
      [Int32Array.of(5, 5), /"contextLens\[1\]" expected an integer from 6 to 1073741823, got number 5/],
      [Int32Array.of(-1, 6), /"contextLens\[0\]" expected an integer from 5/],
      [Int32Array.of(5, 2 ** 30), /"contextLens\[1\]" expected an integer from 6 to 1073741823, got number 1073741824/],
      [Int32Array.of(0x7fffffff, 6), /"contextLens\[0\]"/],
    ];
    for (const [contextLens, message] of refused) {
      const out = new Float32Array(3 * 8).fill(7);
      const error = await (async () => open().attend({ ...call, out, contextLens: contextLens as Int32Array }))().then(() => undefined, (reason: Error) => reason);
      throws(() => { if (error) throw error; }, message);
      ok(out.every((value) => value === 7));
    }
    equal((await open().attend({ ...call, contextLens: Int32Array.of(2 ** 30 - 1, 2 ** 30 - 1) })).lse.length, 3);
    cache.pages.dispose();
  });
}
