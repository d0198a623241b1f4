import { equal, is, match, ok } from 'uvu/assert';
import { hardRows, randomCache } from '../../src/align/inputs.js';
import { alignAppend, alignAttend, alignBattery, alignEncode, pageLayout, requestWebgpuBackend, wasmBackend, webgpuBackend, type AlignAppendCall, type AlignAttendCall, type AttendResult, type OutDtype, type Backend, type NhdTensors, type OptionalFeature } from '../../src/index.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('align');

/** A backend whose caches are not what they should be. */
function withCaches(change: (cache: NhdTensors) => void): Backend {
  const backend = wasmBackend();
  const createPages = backend.createPages.bind(backend);
  backend.createPages = (...args) => {
    const pages = createPages(...args);
    const read = pages.export.bind(pages);
    pages.export = (...range) => {
      const cache = read(...range);
      change(cache);
      return cache;
    };
    return pages;
  };
  return backend;
}

/** A backend whose attention is not what it should be. */
function withResults(change: (result: AttendResult<OutDtype>) => void): Backend {
  const backend = wasmBackend();
  const attend = backend.attend.bind(backend);
  backend.attend = (call) => {
    const result = attend(call);
    change(result);
    return result;
  };
  return backend;
}

const shape = { kvHeads: 3, headDim: 16, blockSize: 5, k: { dtype: 'e4m3fn' }, v: { dtype: 'f16' } } as const;

function appendCall(): AlignAppendCall {
  const numbers = random(1);
  const layout = pageLayout(shape);
  const { count, cache } = randomCache(numbers, layout, [10]);
  const rows = () => hardRows(numbers, 'f32', 6 * 3, 16);
  return { layout, count, start: cache, key: rows(), value: rows(), slotMapping: Int32Array.of(3, -1, 4, 5, 14, 0) };
}

function attendCall(): AlignAttendCall {
  const numbers = random(2);
  const layout = pageLayout(shape);
  const { count, cache, blockTable, seqUsedK } = randomCache(numbers, layout, [7, 4]);
  return { layout, count, cache, blockTable, seqUsedK, q: numbers.normals(5 * 6 * 16), cuSeqlensQ: Int32Array.of(0, 3, 5) };
}

const flip = (array: Uint8Array | Uint16Array, index: number): number => (array[index] ^= 1);
const hex = (code: number, digits: number): string => `0x${code.toString(16).padStart(digits, '0')}`;

test('equal backends align', async () => {
  equal(await alignAppend(wasmBackend(), wasmBackend({ simd: 'baseline' }), appendCall()), { ok: true, summary: 'same bytes', codes: 0, scales: 0 });
  const { ok: same, error, first } = await alignAttend(wasmBackend(), wasmBackend(), attendCall());
  equal({ same, error, first }, { same: true, error: { out: 0, lse: 0 }, first: undefined });
});

test('append: one code that differs is named', async () => {
  // Page 2, place 4: slot 14; head 1, dim 7.
  const index = (14 * 3 + 1) * 16 + 7;
  let [expected, actual] = ['', ''];
  const other = withCaches(({ keyCache }) => {
    const codes = keyCache as Uint8Array;
    expected = hex(codes[index], 2);
    actual = hex(flip(codes, index), 2);
  });
  const result = await alignAppend(wasmBackend(), other, appendCall());
  equal(result.first, { what: 'code', side: 'k', page: 2, slot: 14, head: 1, dim: 7, expected, actual });
  equal([result.ok, result.codes, result.scales], [false, 1, 0]);
  is(result.summary, `1 codes and 0 scales differ, first the k code at page 2, slot 14, head 1, dim 7: expected ${expected}, got ${actual}`);
});

test('append: a scale comes before the codes, keys before values, and places count that were not written to', async () => {
  const untouched = 1 * 5 * 3 + 2; // page 1, place 0, head 2
  const other = withCaches(({ keyCache, keyScale, valueCache }) => {
    flip(keyCache as Uint8Array, 3);
    new Uint32Array(keyScale!.buffer)[untouched] = 0x7fc00001;
    flip(valueCache as Uint16Array, 0);
  });
  const call = appendCall();
  call.start!.keyScale![untouched] = 1;
  const { first, codes, scales } = await alignAppend(wasmBackend(), other, { ...call, slotMapping: Int32Array.of(0, 1, 2, 3, -1, 4) });
  equal({ first, codes, scales }, { first: { what: 'scale', side: 'k', page: 1, slot: 5, head: 2, dim: undefined, expected: '0x3f800000', actual: '0x7fc00001' }, codes: 2, scales: 1 });
  const values = await alignAppend(wasmBackend(), withCaches(({ valueCache }) => flip(valueCache as Uint16Array, 16)), appendCall());
  equal([values.first?.side, values.first?.slot, values.first?.head, values.first?.dim], ['v', 0, 1, 0]);
  match(values.first!.expected, /^0x[0-9a-f]{4}$/);
});

test('attention: within the bound is well, beyond it is named', async () => {
  const index = (3 * 6 + 5) * 16 + 9; // row 3, head 5, dim 9
  const off = (error: number) => withResults(({ out }) => {
    const row = out.subarray(index - 9, index + 7);
    out[index] += error * Math.max(...row.map(Math.abs));
  });
  const near = await alignAttend(wasmBackend(), off(9e-5), attendCall());
  ok(near.ok && near.error.out > 8e-5 && near.error.lse === 0, near.summary);
  const far = await alignAttend(wasmBackend(), off(1.2e-4), attendCall());
  equal([far.ok, far.first?.what, far.first?.row, far.first?.head, far.first?.dim], [false, 'out', 3, 5, 9]);
  match(far.summary, /^off by out 1\.2e-4, lse 0\.0e\+0, the bound is 0\.0001; first out at row 3, head 5, dim 9: expected 0x[0-9a-f]{8} \(-?[\d.]+\), got 0x[0-9a-f]{8} \(/);
  ok((await alignAttend(wasmBackend(), off(1.2e-4), attendCall(), 1e-3)).ok);
});

test('attention: NaN and infinity must be where they are expected', async () => {
  for (const value of [NaN, Infinity, -Infinity]) {
    const { ok: same, first, error } = await alignAttend(wasmBackend(), withResults(({ out }) => (out[17] = value)), attendCall());
    equal([same, first?.row, first?.head, first?.dim, error.out], [false, 0, 1, 1, Infinity]);
  }
  const lse = await alignAttend(wasmBackend(), withResults((result) => (result.lse[13] = -Infinity)), attendCall());
  equal(lse.first, { what: 'lse', row: 2, head: 1, dim: undefined, expected: lse.first!.expected, actual: '0xff800000' });
  const call = attendCall();
  call.cache.keyCache.fill(0x7f);
  const broken = await alignAttend(wasmBackend(), withResults(({ out }) => (out[0] = 0)), call);
  equal([broken.first?.expected, broken.first?.actual], ['0x7fc00000', '0x00000000']);
  ok((await alignAttend(wasmBackend(), wasmBackend({ simd: 'baseline' }), call)).ok);
});

test('the battery catches a wrong byte, a wrong result and a call that fails, and goes on', async () => {
  const names: string[] = [];
  const broken = wasmBackend();
  const attend = broken.attend.bind(broken);
  broken.attend = (call) => {
    if (call.softcap === 2.5) throw new Error('no softcap\nat all');
    return attend(call);
  };
  const { ok: well, cases } = await alignBattery(wasmBackend(), broken, { report: ({ name }) => names.push(name) });
  is(well, false);
  equal(cases.map(({ name }) => name), names);
  is(new Set(names).size, names.length, 'names are different');
  const failed = cases.filter(({ alignment }) => !alignment.ok);
  equal(failed.map(({ alignment }) => alignment), [{ ok: false, summary: 'no softcap' }]);
  ok((await alignBattery(wasmBackend(), wasmBackend({ simd: 'baseline' }))).ok);
  for (const backend of [withCaches(({ valueCache }) => (valueCache[100] = valueCache[100] === 5 ? 6 : 5)), withResults(({ lse }) => (lse[0] += 1))]) {
    const result = await alignBattery(wasmBackend(), backend);
    ok(!result.ok && result.cases.some(({ alignment }) => alignment.ok));
  }
});

const onGpu = suite(`align with ${adapterName}`, { skip: noAdapter });

onGpu('the battery, in every variant', async () => {
  const adapter = (await gpu!.requestAdapter())!;
  const features: OptionalFeature[] = adapter.features.has('subgroups') ? ['subgroups'] : [];
  const device = await adapter.requestDevice({ requiredFeatures: features as GPUFeatureName[] });
  // One device for all: what does not differ between them is compiled once.
  const variants = new Set<string>();
  for (const optionalFeatures of [features, []]) {
    const backend = await webgpuBackend({ device, optionalFeatures });
    if (variants.has(backend.variant.key)) continue;
    variants.add(backend.variant.key);
    const { cases } = await alignBattery(wasmBackend(), backend);
    equal(cases.filter(({ alignment }) => !alignment.ok), [], backend.variant.key);
    backend.dispose();
  }
  device.destroy();
}, { seconds: 240 });

onGpu('encode, over the ends of chunks and ranges', async () => {
  const backend = await requestWebgpuBackend({ gpu });
  const shares: number[] = [];
  for (const format of ['e4m3fn', 'e5m2'] as const) {
    // From the smallest subnormal code to the largest, and the last values of all, which are NaN.
    equal(await alignEncode(backend, format, { first: 0x3a000000, count: 2 ** 24 + 12, progress: (share) => shares.push(share) }), { ok: true, summary: 'same codes', codes: 0 });
    ok((await alignEncode(backend, format, { first: 2 ** 32 - 2 ** 20, count: 2 ** 20 })).ok);
  }
  equal(shares.map((share) => share === 1), [false, true, false, true]);
  backend.dispose();
});
