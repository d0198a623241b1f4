/** Tokens that go from pages of f16 or f32 into quantized ones: the bytes that append of the same values writes, on every backend. */
import { equal, is, match, ok } from 'uvu/assert';
import { pageLayout, wasmBackend, type AppendCall, type Backend, type FloatArray, type NhdTensors, type PageLayout, type Pages, type RequantizeCall, type SideOptions } from '../src/index.js';
import { assertSameBits } from './bits.js';
import { poison, shuffled } from './fixture.js';
import { random } from './random.js';
import { mixedRows } from './rows.js';
import type { Suite } from './suite.js';

type Setting = Pick<AppendCall, 'recipe' | 'scalePrecision' | 'kScale' | 'vScale'> & { readonly k: SideOptions; readonly v: SideOptions };

const [kvHeads, headDim] = [3, 24];
const group = { granularity: 'group', groupSize: 8 } as const;
const perChannel = Float32Array.from({ length: kvHeads * headDim }, (_, i) => 0.02 * 1.1 ** (i % 31));

export const settings: readonly Setting[] = [
  { k: {}, v: { dtype: 'e5m2' } },
  { k: group, v: { ...group, dtype: 'int8' }, recipe: { k: 'vllm-token-head', v: 'ferrum-int8' } },
  { k: { granularity: 'channel' }, v: { dtype: 'int8', granularity: 'head' }, kScale: perChannel, vScale: Float32Array.of(0.02, 1, 3) },
  { k: { dtype: 'int8' }, v: { granularity: 'tensor' }, recipe: 'compressed-tensors', scalePrecision: { k: 'f16', v: undefined }, vScale: 0.5 },
  { k: { dtype: 'f16' }, v: { dtype: 'f32' } },
];

/** Pages of tokens, and what a call on them says. */
export interface Filled {
  readonly from: Pages;
  readonly layout: PageLayout;
  readonly x: { readonly key: FloatArray; readonly value: FloatArray };
  readonly call: Pick<RequantizeCall, 'fromPages' | 'slotMapping'>;
  readonly count: number;
}

/** Rows of every kind in shuffled pages, of which some go elsewhere, every seventh token nowhere. */
export async function filled(backend: Backend, dtype: 'f16' | 'f32', fromBlock: number, blockSize: number, { k, v }: Setting): Promise<Filled> {
  const numbers = random(fromBlock + blockSize);
  const [pageCount, side] = [6, { dtype }];
  const from = backend.createPages(pageLayout({ kvHeads, headDim, blockSize: fromBlock, k: side, v: side, order: 'NHD' }), pageCount);
  const tokens = pageCount * fromBlock;
  const rows = (): FloatArray => mixedRows(numbers, dtype, tokens * kvHeads, headDim);
  const [key, value] = [rows(), rows()];
  // As they are: append would make all NaN the same.
  await from.import({ keyCache: key, valueCache: value });
  const fromPages = shuffled(pageCount, numbers).slice(0, 4);
  const taken = fromPages.length * fromBlock;
  const layout = pageLayout({ kvHeads, headDim, blockSize, k, v });
  const count = Math.ceil(taken / blockSize) + 2;
  // In runs from any place on, as a sequence's pages lie.
  const slotMapping = Int32Array.from({ length: taken }, (_, i) => (i % 7 === 6 ? -1 - i : i + 5));
  const pick = (x: FloatArray): FloatArray => {
    const floats = fromBlock * kvHeads * headDim;
    const picked = x.slice(0, taken * kvHeads * headDim);
    for (const [i, page] of fromPages.entries()) picked.set(x.subarray(page * floats, (page + 1) * floats), i * floats);
    return picked;
  };
  return { from, layout, x: { key: pick(key), value: pick(value) }, call: { fromPages, slotMapping }, count };
}

/** What append of the same tokens leaves in pages of NaN. */
export function expectedOf({ layout, x, call: { slotMapping }, count }: Filled, dtype: 'f16' | 'f32', { k: _k, v: _v, ...setting }: Setting): NhdTensors {
  using cpu = wasmBackend();
  const pages = cpu.createPages(layout, count);
  pages.import(poison(layout, count));
  cpu.append({ ...setting, pages, ...x, dtype, slotMapping });
  return pages.export();
}

export function assertSameTensors(actual: NhdTensors, expected: NhdTensors, what: string): void {
  for (const [name, array] of Object.entries(expected)) if (array) assertSameBits(actual[name as keyof NhdTensors]!, array, `${what}, ${name}`);
}

/** @param open gives the backend once the tests run */
export function testRequantize(test: Suite, open: () => Backend): void {
  for (const setting of settings) {
    const { k, v, ...how } = setting;
    test(`requantize: the bytes of append, ${k.dtype ?? ''} ${k.granularity ?? ''}/${v.dtype ?? ''} ${v.granularity ?? ''}`, async () => {
      const backend = open();
      for (const [dtype, fromBlock, blockSize] of [['f32', 16, 16], ['f16', 16, 8], ['f32', 5, 7], ['f16', 1, 16]] as const) {
        const given = await filled(backend, dtype, fromBlock, blockSize, setting);
        const pages = backend.createPages(given.layout, given.count);
        await pages.import(poison(given.layout, given.count));
        const { slotMapping } = given.call;
        const written = slotMapping.filter((slot) => slot >= 0).length;
        equal(await backend.requantize({ ...how, ...given.call, from: given.from, pages }), { written, skipped: slotMapping.length - written });
        assertSameTensors(await pages.export(), expectedOf(given, dtype, setting), `${dtype} pages of ${fromBlock} into ${blockSize}`);
        pages.dispose();
        given.from.dispose();
      }
    });
  }

  test('requantize: what does not fit is refused by name, and nothing is written', async () => {
    const backend = open();
    const given = await filled(backend, 'f32', 4, 8, settings[0]);
    const pages = backend.createPages(given.layout, given.count);
    const before = await pages.export();
    const made: Pages[] = [];
    const fromOf = (change: object): Pages => {
      const other = backend.createPages(pageLayout({ kvHeads, headDim, blockSize: 4, k: { dtype: 'f32' }, v: { dtype: 'f32' }, order: 'NHD', ...change }), 6);
      made.push(other);
      return other;
    };
    const call = { ...given.call, from: given.from, pages };
    const slots = (change: (slots: Int32Array) => void): Int32Array => {
      const copy = given.call.slotMapping.slice();
      change(copy);
      return copy;
    };
    const refused: readonly (readonly [unknown, RegExp])[] = [
      [{ from: fromOf({ order: 'HND' }) }, /"from" expected pages of order NHD, got HND/],
      [{ from: fromOf({ k: {} }) }, /"from" expected pages of f16 or of f32, keys and values alike, got e4m3fn and f32/],
      [{ from: fromOf({ v: { dtype: 'f16' } }) }, /"from" expected pages of f16 or of f32, keys and values alike, got f32 and f16/],
      [{ from: fromOf({ kvHeads: 2 }) }, /"from" expected pages with kvHeads 3, as "pages", got 2/],
      [{ from: fromOf({ headDim: 16 }) }, /"from" expected pages with headDim 24, as "pages", got 16/],
      [{ from: undefined }, /"from" expected pages that this backend created/],
      [{ from: wasmBackend().createPages(given.from.layout, 6) }, /"from" expected pages that this backend created/],
      [{ pages: wasmBackend().createPages(given.layout, 6) }, /"pages" expected pages that this backend created/],
      [{ pages: given.from }, /"from" expected other pages than "pages"/],
      [{ fromPages: [0, 1, 2, 6] }, /"fromPages\[3\]" expected an integer from 0 to 5, got number 6/],
      [{ fromPages: [0, -1, 2, 3] }, /"fromPages\[1\]" expected an integer from 0 to 5/],
      [{ fromPages: [0, 1.5, 2, 3] }, /"fromPages\[1\]"/],
      [{ fromPages: [0, 1, 2] }, /"slotMapping" expected 3 pages × 4 tokens = 12 slots, got 16/],
      [{ slotMapping: [0] }, /"slotMapping" expected an Int32Array, got Array/],
      [{ slotMapping: slots((copy) => copy.fill(given.count * 8, 3, 4)) }, /"slotMapping\[3\]" expected a slot below/],
      [{ slotMapping: slots((copy) => copy.fill(copy[0], 3, 4)) }, /"slotMapping\[3\]" expected a slot that no other token has/],
      [{ kScale: 2 }, /"kScale"/],
      [{ recipe: 'none' }, /"recipe"/],
    ];
    for (const [change, message] of refused) {
      const error = await (async () => backend.requantize({ ...call, ...(change as object) }))().then(() => undefined, (reason: Error) => reason);
      ok(error, `${message} was not refused`);
      match(error.message, message);
    }
    assertSameTensors(await pages.export(), before, 'nothing was written');
    // Nothing to be done is done at once.
    equal(await backend.requantize({ ...call, fromPages: [], slotMapping: new Int32Array(0) }), { written: 0, skipped: 0 });
    equal(await backend.requantize({ ...call, slotMapping: call.slotMapping.slice().fill(-1) }), { written: 0, skipped: 16 });
    is((await backend.requantize(call)).written, call.slotMapping.filter((slot) => slot >= 0).length);
    for (const each of [...made, pages, given.from]) each.dispose();
  });

  test('requantize takes its turn: it reads what was there, and writes before what comes later', async () => {
    const backend = open();
    const given = await filled(backend, 'f32', 16, 16, settings[0]);
    const { from, layout, call, count, x } = given;
    const pages = backend.createPages(layout, count);
    await pages.import(poison(layout, count));
    const [fromPages, slotMapping] = [[...call.fromPages as number[]], call.slotMapping.slice()];
    const blockTable = Int32Array.from({ length: count }, (_, i) => i);
    const q = random(3).normals(200 * kvHeads * headDim);
    const expected = expectedOf(given, 'f32', settings[0]);
    const results = [
      backend.attend({ pages: from, q, blockTable: blockTable.subarray(0, 6), cuSeqlensQ: Int32Array.of(0, 200), seqUsedK: Int32Array.of(90) }),
      backend.requantize({ fromPages, slotMapping, from, pages }),
      backend.append({ pages: from, key: x.key.map(() => 7), value: x.value.map(() => 7), slotMapping: Int32Array.from(slotMapping, (_, i) => i) }),
    ];
    fromPages.fill(0);
    slotMapping.fill(3);
    from.dispose();
    const stored = pages.export();
    await Promise.all(results);
    assertSameTensors(await stored, expected, 'what was written');
    pages.dispose();
  });
}
