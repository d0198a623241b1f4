/** Caches of other systems go in and out, bit for bit. */
import { equal, throws } from 'uvu/assert';
import {
  ferrumLayout,
  flashinferLayout,
  milaLayout,
  pageLayout,
  vllmLayout,
  wasmBackend,
  type CacheTensors,
  type NhdTensors,
  type PageLayout,
  type SideOptions,
  type TensorLayout,
} from '../../src/index.js';
import { builds } from '../builds.js';
import { ThreadedBackend } from '../../src/wasm/threads/backend.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { anyNhd, foreigns, foreignTensors } from './foreign.js';

const test = suite('layouts');
const backend = wasmBackend();
const fail = (message: string): never => {
  throw new Error(message);
};
const names = ['keyCache', 'valueCache', 'keyScale', 'valueScale'] as const;

function assertSameTensors(actual: CacheTensors, expected: CacheTensors, what: string): void {
  for (const name of names) if (expected[name]) assertSameBits(actual[name]!, expected[name], `${what}, ${name}`);
}

/** Zeros after so many tokens. */
function endAt(page: PageLayout, nhd: NhdTensors, tokens: number): NhdTensors {
  for (const name of names) {
    const perToken = nhd[name] && nhd[name].length / (nhd.keyCache.length / (page.kvHeads * page.headDim));
    nhd[name]?.fill(0, tokens * perToken!);
  }
  return nhd;
}

/** One page of some. */
function pageOf(page: PageLayout, nhd: NhdTensors, at: number): NhdTensors {
  const part = <T extends { readonly length: number; slice(from: number, to: number): T }>(array: T, of: number): T => array.slice((at * array.length) / of, ((at + 1) * array.length) / of);
  const blocks = nhd.keyCache.length / (page.blockSize * page.kvHeads * page.headDim);
  return Object.fromEntries(names.flatMap((name) => (nhd[name] ? [[name, part(nhd[name] as Float32Array, blocks)]] : []))) as unknown as NhdTensors;
}

const both = (side: SideOptions): { readonly k: SideOptions; readonly v: SideOptions } => ({ k: side, v: side });
const sides = {
  'e4m3fn, token-head': both({ dtype: 'e4m3fn' }),
  'e5m2, tensor': both({ dtype: 'e5m2', granularity: 'tensor' }),
  'int8, token-head': both({ dtype: 'int8' }),
  'int8, groups of 8': both({ dtype: 'int8', granularity: 'group', groupSize: 8 }),
  'e4m3fn, head; e5m2, channel': { k: { dtype: 'e4m3fn', granularity: 'head' }, v: { dtype: 'e5m2', granularity: 'channel' } },
  'groups of 8; token-head': { k: { granularity: 'group', groupSize: 8 }, v: {} },
  f16: both({ dtype: 'f16' }),
  f32: both({ dtype: 'f32' }),
  'e4m3fn, f16': { k: {}, v: { dtype: 'f16' } },
} as const satisfies { readonly [name: string]: { readonly k: SideOptions; readonly v: SideOptions } };

for (const foreign of foreigns) {
  for (const [name, { k, v }] of Object.entries(sides)) {
    // One array has one type, and inline scales are one per row; scales in one array are of one granularity.
    const fits = !foreign.together || (name === 'e4m3fn, head; e5m2, channel' ? !foreign.inline : k === v);
    if (!fits || (foreign.inline && !name.endsWith('token-head'))) continue;
    test(`${foreign.name}: ${name}`, () => {
      for (const [blockSize, kvHeads, headDim] of [[16, 2, 24], [5, 3, 8], [1, 1, 16]]) {
        const page = pageLayout({ kvHeads, headDim, blockSize, k, v });
        const numbers = random(blockSize);
        const nhd = anyNhd(page, 3, numbers);
        const theirs = foreignTensors(foreign, page, 3, nhd, numbers);
        const expected = endAt(page, nhd, theirs.layout!.tokens);
        const pages = backend.createPages(page, 5);
        const before = anyNhd(page, 5, numbers);
        pages.import(before);
        pages.import(theirs, 1);
        assertSameTensors(pages.export(1, 3), expected, `blockSize ${blockSize}`);
        assertSameTensors(pages.export(0, 1), pageOf(page, before, 0), 'the page before');
        assertSameTensors(pages.export(4), pageOf(page, before, 4), 'the page after');
        // Out over other rows, with the same bytes around them.
        const [target, filled] = [anyNhd(page, 3, numbers), expected].map((rows) => foreignTensors(foreign, page, 3, rows, random(100)));
        pages.exportInto(target, 1);
        assertSameTensors(target, filled, `blockSize ${blockSize}, out`);
        pages.dispose();
      }
    });
  }
}

test('on threads, from and into memory that is shared', async () => {
  const page = pageLayout({ kvHeads: 2, headDim: 24, blockSize: 16 });
  const numbers = random(1);
  const nhd = anyNhd(page, 3, numbers);
  const threaded = new ThreadedBackend(builds[0], 2, 0);
  const pages = threaded.createPages(page, 4);
  const shared = (array: Uint8Array): Uint8Array => {
    const copy = new Uint8Array(new SharedArrayBuffer(array.length));
    copy.set(array);
    return copy;
  };
  const foreign = foreigns.find(({ name }) => name === 'FlashInfer, HND')!;
  const theirs = foreignTensors(foreign, page, 3, nhd, numbers);
  const cache = shared(theirs.keyCache as Uint8Array);
  await pages.import({ ...theirs, keyCache: cache, valueCache: cache }, 1);
  assertSameTensors(await pages.export(1), nhd, 'in');
  const out = shared(new Uint8Array(cache.length));
  const scales = new Float32Array(theirs.keyScale!.length);
  await pages.exportInto({ keyCache: out, valueCache: out, keyScale: scales, valueScale: scales, layout: theirs.layout }, 1);
  assertSameTensors({ keyCache: out, valueCache: out, keyScale: scales, valueScale: scales }, theirs, 'out');
  threaded.dispose();
});

test('no tokens are none: nothing is read or written', () => {
  const page = pageLayout({ kvHeads: 2, headDim: 8, blockSize: 16 });
  const pages = backend.createPages(page, 1);
  const nhd = anyNhd(page, 1, random(3));
  pages.import(nhd);
  const none = { keyCache: new Uint8Array(0), valueCache: new Uint8Array(0), keyScale: new Float32Array(0), valueScale: new Float32Array(0), layout: milaLayout(page, { maxSeqLen: 0 }) };
  pages.import(none);
  pages.import(none, 1);
  pages.exportInto(none);
  assertSameTensors(pages.export(), nhd, 'as it was');
  pages.dispose();
});

test('what does not fit is refused by name, and nothing is written', () => {
  const page = pageLayout({ kvHeads: 2, headDim: 8, blockSize: 4 });
  const pages = backend.createPages(page, 3);
  const nhd = anyNhd(page, 3, random(2));
  pages.import(nhd);
  const kv = new Uint8Array(3 * 2 * 4 * 2 * 8);
  const scales = new Float32Array(3 * 4 * 2);
  const layout = vllmLayout(page, { blocks: 3, shape: 'interleaved' });
  const good = { keyCache: kv, valueCache: kv, keyScale: scales, valueScale: scales, layout };
  const codes = (change: object): TensorLayout => ({ ...layout, v: { ...layout.v, codes: { ...layout.v.codes, ...change } } });
  const cases: readonly (readonly [Partial<CacheTensors>, RegExp])[] = [
    [{ keyCache: kv.subarray(0, kv.length - 65) }, /^RangeError: "keyCache" expected at least 320 elements, as "layout.k.codes" says, got 319/],
    [{ valueCache: kv.subarray(1) }, /^RangeError: "valueCache" expected at least 384 elements, as "layout.v.codes" says, got 383/],
    [{ keyScale: scales.subarray(1) }, /^RangeError: "keyScale" expected at least 24 elements, as "layout.k.scales" says, got 23/],
    [{ valueScale: undefined }, /^TypeError: "valueScale" expected a Float32Array, got undefined/],
    [{ keyCache: new Int8Array(kv.length) }, /^TypeError: "keyCache" expected a Uint8Array \(e4m3fn\), got Int8Array/],
    [{ layout: { ...layout, tokens: 13 } }, /^RangeError: "layout.tokens" expected an integer from 0 to 12, got number 13/],
    [{ layout: { ...layout, tokens: 1.5 } }, /^RangeError: "layout.tokens" expected/],
    [{ layout: codes({ head: -8 }) }, /^RangeError: "layout.v.codes.head" expected an integer of at least 0, got number -8/],
    [{ layout: codes({ block: 0.5 }) }, /^RangeError: "layout.v.codes.block" expected/],
    [{ layout: codes({ token: undefined }) }, /^RangeError: "layout.v.codes.token" expected .*, got undefined/],
    [{ layout: { ...layout, k: { codes: layout.k.codes } } }, /^TypeError: "layout.k.scales" expected strides, as the pages hold scales, got undefined/],
    [{ layout: { ...layout, k: { ...layout.k, scales: { ...layout.k.scales!, group: -1 } } } }, /^RangeError: "layout.k.scales.group" expected/],
    // A partial block after which the full one before it ends.
    [{ keyCache: kv.subarray(0, 40), layout: { ...layout, tokens: 5, k: { ...layout.k, codes: { ...layout.k.codes, block: 1 } } } }, /^RangeError: "keyCache" expected at least 64 elements/],
  ];
  for (const [change, message] of cases) {
    const expected = (error: Error): boolean => message.test(String(error)) || fail(`${String(error)} is not ${String(message)}`);
    throws(() => pages.import({ ...good, ...change }), expected);
    throws(() => pages.exportInto({ ...good, ...change }), expected);
  }
  throws(() => pages.import(good, 1), /"firstPage" expected an integer from 0 to 0, got number 1/);
  throws(() => pages.import(anyNhd(page, 4, random(4))), /"keyCache" expected at most 3 pages, as there are, got 4/);
  throws(() => pages.exportInto({ keyCache: kv, valueCache: kv, keyScale: scales, valueScale: scales }), /"keyScale" expected length 48/);
  const apart = vllmLayout(page, { blocks: 3 });
  throws(() => pages.exportInto({ ...good, valueCache: kv.subarray(0, 192), layout: apart }), /"valueCache" expected a place of its own, got that of "keyCache"/);
  assertSameTensors(pages.export(), nhd, 'as it was');
  equal([kv.some(Boolean), scales.some(Boolean)], [false, false]);
  const unscaled = backend.createPages(pageLayout({ kvHeads: 2, headDim: 8, blockSize: 4, k: { granularity: 'tensor' }, v: { granularity: 'tensor' } }), 3);
  throws(() => unscaled.import(good), /"keyScale" expected to be absent: with granularity tensor/);
});

test('a layout that no such system has is refused by name', () => {
  const page = pageLayout({ kvHeads: 2, headDim: 8, blockSize: 4, v: { dtype: 'f16' } });
  throws(() => vllmLayout(page, { blocks: 1, shape: 'mixed' as 'packed' }), /"shape" expected one of separate, stacked, interleaved, packed, got "mixed"/);
  throws(() => vllmLayout(page, { blocks: 1, layer: { index: 0, count: 2 } }), /"shape" expected one of stacked, interleaved, packed for a tensor of all layers, got "separate"/);
  throws(() => vllmLayout(page, { blocks: 1, order: 'NDH' as 'NHD' }), /"order" expected NHD or HND, got "NDH"/);
  throws(() => vllmLayout(page, { blocks: -1 }), /"blocks" expected/);
  throws(() => vllmLayout(page, { blocks: 1, shape: 'stacked', layer: { index: 2, count: 2 } }), /"layer.index" expected an integer from 0 to 1, got number 2/);
  throws(() => vllmLayout(page, { blocks: 1, shape: 'stacked' }), /"page" expected keys and values of one size, as they lie in one tensor, got e4m3fn and f16/);
  throws(() => vllmLayout(page, { blocks: 1, inlineScales: true }), /"inlineScales" expected granularity token-head of "v", got tensor/);
  throws(() => flashinferLayout(page, { pages: 1, kvLayout: 'nhd' as 'NHD' }), /"kvLayout" expected NHD or HND, got "nhd"/);
  throws(() => flashinferLayout(page, { pages: 0.5 }), /"pages" expected/);
  const pages = {} as typeof page;
  for (const make of [() => vllmLayout(pages, { blocks: 1 }), () => flashinferLayout(pages, { pages: 1 }), () => milaLayout(pages, { maxSeqLen: 1 }), () => ferrumLayout(pages, { tokens: 1 })]) {
    throws(make, /"page" expected what pageLayout\(\) gives, got Object without offsets/);
  }
  throws(() => milaLayout(page, { maxSeqLen: 10, tokens: 11 }), /"tokens" expected an integer from 0 to 10, got number 11/);
});
