import { is, ok } from 'uvu/assert';
import { readAttendCase, runAttendCase } from '../../src/files/attend-case.js';
import { attentionError } from '../../src/files/compare.js';
import { pageLayout, wasmBackend, type AttendCall } from '../../src/index.js';
import { WebgpuBackend } from '../../src/webgpu/backend.js';
import { hasF16 as probeF16 } from '../../src/webgpu/probe.js';
import { variantOf } from '../../src/webgpu/variant.js';
import { testGolden, testPlacement } from '../attention-bits.js';
import { fewShapes, testAgainstReference } from '../attention-reference.js';
import { assertSameBits } from '../bits.js';
import { callOf, fixture } from '../fixture.js';
import { golden, goldenFiles } from '../golden.js';
import { adapterName, gpu, inNode, noAdapter } from '../gpu/adapter.js';
import { inF32, withShaders } from '../gpu/stand-in.js';
import { hasF16, openVariant, variants } from '../gpu/variants.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

for (const { name, optionalFeatures } of noAdapter ? [variants[0]] : variants) {
  const test = suite(`attend, ${adapterName}, ${name}`, { skip: noAdapter });
  let backend: WebgpuBackend;
  test.before(async () => {
    backend = await openVariant(optionalFeatures);
  });
  test.after(() => backend.dispose());

  // All of them once; with subgroups, and in a page, some: most of the time goes into compiling.
  const all = inNode && optionalFeatures.length === 0;
  testGolden(test, () => backend, all ? 1 : 4);
  testPlacement(test, () => backend);
  testAgainstReference(test, () => backend, all ? fewShapes : fewShapes.slice(0, 1));

  test('queries of any size give the same bits', async () => {
    const cache = await fixture(backend, random(1), { kvHeads: 2, headDim: 64, blockSize: 16, kvLens: [300] });
    for (const rows of [1, 20]) {
      const q = random(2).normals(rows * 4 * 64);
      const expected = await backend.attend(callOf(cache, [rows], q));
      for (const exponent of [90, -90]) {
        const scaled = q.map((x) => x * 2 ** exponent);
        const { out, lse } = await backend.attend({ ...callOf(cache, [rows], scaled), softmaxScale: 2 ** -exponent / 8 });
        assertSameBits(out, expected.out, `${rows} rows of q times 2^${exponent}`);
        assertSameBits(lse, expected.lse);
      }
    }
    cache.pages.dispose();
  });

  test('a visible NaN or infinity gives what it gives on the CPU, one that is not seen nothing', async () => {
    const [tokens, kvHeads, headDim] = [40, 2, 16];
    for (const [dtype, granularity, groupSize] of [['e4m3fn'], ['e5m2'], ['f16'], ['f32'], ['e5m2', 'group', 8], ['int8', 'group', 8]] as const) {
      const side = { dtype, granularity, groupSize };
      const layout = pageLayout({ kvHeads, headDim, blockSize: 8, k: side, v: side });
      const numbers = random(3);
      const key = numbers.normals(tokens * kvHeads * headDim);
      const value = numbers.normals(tokens * kvHeads * headDim);
      const at = (j: number, head: number, d: number): number => (j * kvHeads + head) * headDim + d;
      key[at(30, 0, 3)] = NaN;
      value[at(25, 1, 5)] = NaN;
      // An infinite value makes the scale of its row infinite, where there is one.
      value[at(35, 0, 7)] = -Infinity;
      key[at(38, 1, 1)] = Infinity;
      const slotMapping = Int32Array.from({ length: tokens }, (_, i) => i);
      const blockTable = Int32Array.from({ length: 5 }, (_, i) => i);
      for (const [rows, options] of [[40, {}], [12, {}], [12, { windowLeft: 3 }], [20, { causal: false, windowLeft: 2, windowRight: 2 }], [12, { softcap: 5 }], [40, { softcap: 5 }]] as const) {
        const q = random(4).normals(rows * 6 * headDim);
        const results = [];
        for (const each of [wasmBackend(), backend]) {
          const pages = each.createPages(layout, 5);
          await each.append({ pages, key, value, slotMapping });
          results.push(await each.attend({ ...options, pages, q, blockTable, cuSeqlensQ: Int32Array.of(0, rows), seqUsedK: Int32Array.of(tokens) }));
          pages.dispose();
        }
        const [cpu, gpu] = results;
        const kind = (x: number): number => (Number.isNaN(x) ? NaN : Number.isFinite(x) ? 0 : x);
        assertSameBits(Float32Array.from(gpu.out, kind), Float32Array.from(cpu.out, kind), `${dtype}, ${rows} rows, out`);
        assertSameBits(Float32Array.from(gpu.lse, kind), Float32Array.from(cpu.lse, kind), `${dtype}, ${rows} rows, lse`);
        ok(cpu.out.some(Number.isNaN) && cpu.out.some(Number.isFinite));
      }
    }
  });

  test('scales of groups that no row sees may be anything, also so large that products overflow', async () => {
    const side = { dtype: 'e5m2', granularity: 'group', groupSize: 8 } as const;
    const [headDim, groups, seen] = [16, 2, 30];
    const cache = await fixture(backend, random(8), { kvHeads: 2, headDim, blockSize: 8, kvLens: [40], k: side, v: side });
    for (const rows of [15, 40]) {
      const call = callOf(cache, [rows], random(9).normals(rows * 6 * headDim));
      const expected = await backend.attend(call);
      const keyScale = cache.stored.keyScale!.slice();
      const valueScale = cache.stored.valueScale!.slice();
      for (let j = seen; j < 40; j++) {
        const at = (cache.blockTable[j >> 3] * 8 + (j & 7)) * 2 * groups;
        keyScale.fill([NaN, Infinity, 3e38][j % 3], at, at + 2 * groups);
        valueScale.fill([3e38, NaN, -Infinity][j % 3], at, at + 2 * groups);
      }
      await cache.pages.import({ ...cache.stored, keyScale, valueScale });
      const { out, lse } = await backend.attend(call);
      const before = (rows - 40 + seen) * 6;
      assertSameBits(out.subarray(0, before * headDim), expected.out.subarray(0, before * headDim), `${rows} rows`);
      assertSameBits(lse.subarray(0, before), expected.lse.subarray(0, before), `${rows} rows, lse`);
      ok(out.subarray(before * headDim).every(Number.isNaN), 'what sees them');
      await cache.pages.import(cache.stored);
    }
    cache.pages.dispose();
  });

  test('invariance: alone and in a batch give the same bits with ALiBi, scales of groups, and descales', async () => {
    const [kvHeads, queryHeads, headDim, kvLens, qLens] = [2, 6, 64, [300, 17, 64], [5, 17, 1]];
    const groups = { dtype: 'e4m3fn', granularity: 'group', groupSize: 16 } as const;
    const head = { dtype: 'e5m2', granularity: 'head' } as const;
    const cache = await fixture(backend, random(31), { kvHeads, headDim, blockSize: 16, kvLens, k: groups, v: head });
    const rowFloats = queryHeads * headDim;
    const q = random(32).normals(23 * rowFloats);
    const vDescale = Float32Array.from({ length: 6 }, (_, i) => 0.3 + i);
    const alibiSlopes = Float32Array.from({ length: queryHeads }, (_, i) => 2 ** -i);
    const batch = await backend.attend({ ...callOf(cache, qLens, q), alibiSlopes, vDescale });
    let row = 0;
    for (const [s, rows] of qLens.entries()) {
      const maxBlocks = cache.blockTable.length / kvLens.length;
      const alone = await backend.attend({
        pages: cache.pages, alibiSlopes, vDescale: vDescale.subarray(2 * s, 2 * s + 2), q: q.subarray(row * rowFloats, (row + rows) * rowFloats), cuSeqlensQ: Int32Array.of(0, rows),
        blockTable: cache.blockTable.slice(s * maxBlocks, (s + 1) * maxBlocks), seqUsedK: Int32Array.of(kvLens[s]),
      });
      assertSameBits(alone.out, batch.out.subarray(row * rowFloats, (row + rows) * rowFloats), `sequence ${s}`);
      row += rows;
    }
    // One number for all is as good as that number for each.
    const each = await backend.attend({ ...callOf(cache, qLens, q), vDescale: new Float32Array(6).fill(0.37) });
    assertSameBits((await backend.attend({ ...callOf(cache, qLens, q), vDescale: 0.37 })).out, each.out);
    cache.pages.dispose();
  });

  test('tens of thousands of keys that weigh the same', async () => {
    const [tokens, headDim] = [30_000, 8];
    const side = { dtype: 'f32' } as const;
    const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim, blockSize: 16, k: side, v: side }), tokens / 16);
    const values = Float32Array.from({ length: tokens * headDim }, () => 1.3);
    await pages.import({ keyCache: new Float32Array(tokens * headDim), valueCache: values });
    const blockTable = Int32Array.from({ length: tokens / 16 }, (_, i) => i);
    for (const rows of [1, 17]) {
      const q = random(5).normals(rows * headDim);
      const { out, lse } = await backend.attend({ pages, q, blockTable, cuSeqlensQ: Int32Array.of(0, rows), seqUsedK: Int32Array.of(tokens), causal: false });
      ok(out.every((value) => Math.abs(value - 1.3) < 1.3e-4), `${rows} rows: ${out[0]}`);
      ok(lse.every((value) => Math.abs(value - Math.log(tokens)) < 1e-4), `${rows} rows, lse: ${lse[0]}`);
    }
    pages.dispose();
  });

  test('a softcap of any size', async () => {
    const cache = await fixture(backend, random(6), { kvHeads: 1, headDim: 8, blockSize: 16, kvLens: [30] });
    for (const rows of [1, 17]) {
      const call = callOf(cache, [rows], random(7).normals(rows * 8));
      const plain = await backend.attend(call);
      for (const softcap of [1e30, 1e38, 3e38]) ok(attentionError(await backend.attend({ ...call, softcap }), plain, 8).out < 1e-5, `softcap ${softcap}, ${rows} rows`);
      const even = await backend.attend({ ...call, softmaxScale: 0 });
      for (const softcap of [1e-30, 1e-40, 2 ** -149]) ok(attentionError(await backend.attend({ ...call, softcap }), even, 8).out < 1e-5, `softcap ${softcap}, ${rows} rows`);
    }
    cache.pages.dispose();
  });

  test('rows that see nothing: out 0, lse −∞ or the sink', async () => {
    for (const rows of [4, 30]) {
      const cache = await fixture(backend, random(41), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [2, 0] });
      const call = callOf(cache, [rows, 2], random(42).normals((rows + 2) * 8));
      const plain = await backend.attend(call);
      const withSink = await backend.attend({ ...call, sinks: Float32Array.of(0.3) });
      for (let row = 0; row < rows + 2; row++) {
        const sees = row === rows - 1 || row === rows - 2;
        is(plain.lse[row] === -Infinity, !sees);
        if (sees) continue;
        assertSameBits(plain.out.subarray(row * 8, row * 8 + 8), new Float32Array(8), `row ${row}`);
        is(withSink.lse[row], Math.fround(0.3));
      }
      cache.pages.dispose();
    }
  });

  test('a row whose scores are all −∞ is NaN, unless there is a sink', async () => {
    const pages = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 1, k: { dtype: 'f32' }, v: { dtype: 'f32' } }), 1);
    await pages.import({ keyCache: new Float32Array(8).fill(-Infinity), valueCache: new Float32Array(8) });
    for (const rows of [1, 17]) {
      const call: AttendCall = { pages, q: new Float32Array(rows * 8).fill(1), blockTable: Int32Array.of(0), cuSeqlensQ: Int32Array.of(0, rows), seqUsedK: Int32Array.of(1) };
      const { out, lse } = await backend.attend(call);
      ok(out.subarray((rows - 1) * 8).every(Number.isNaN) && Number.isNaN(lse[rows - 1]));
      assertSameBits((await backend.attend({ ...call, sinks: Float32Array.of(2) })).out, new Float32Array(rows * 8));
    }
    pages.dispose();
  });

  test('pages before the window need not be there', async () => {
    const cache = await fixture(backend, random(51), { kvHeads: 1, headDim: 8, blockSize: 4, kvLens: [600] });
    for (const rows of [1, 20]) {
      const call = { ...callOf(cache, [rows], random(52).normals(rows * 8)), windowLeft: 6 };
      const expected = await backend.attend(call);
      const evicted = cache.blockTable.slice().fill(-1, 0, Math.floor((600 - rows - 6) / 4));
      assertSameBits((await backend.attend({ ...call, blockTable: evicted })).out, expected.out);
    }
    cache.pages.dispose();
  });
}

async function assertGolden(backend: WebgpuBackend, paths: readonly string[], bound: number): Promise<void> {
  for (const path of paths) {
    const attendCase = readAttendCase(golden(path), path);
    const error = attentionError(await runAttendCase(backend, attendCase), attendCase.expected, attendCase.layout.headDim);
    ok(error.out <= bound && error.lse <= bound, `${path}: out ${error.out}, lse ${error.lse}`);
  }
}

/** Kernels that this device would not get by itself. Where they run makes no difference: a browser's compiler is Dawn's, too. */
function testOtherKernels(): void {
  const f16 = suite(`attend, ${adapterName}, f16`, { skip: noAdapter });
  f16(hasF16 ? 'golden cases within 5e-3' : 'golden cases, with f32 in place of f16, which this device lacks', async () => {
    // In f32 queries of 256 dims would take more workgroup memory than there is.
    const cases = goldenFiles('attend').filter((path) => path.includes('decode') && (hasF16 || !path.includes('D256')));
    if (hasF16) {
      const backend = await openVariant(['shader-f16']);
      ok(backend.variant.f16);
      await assertGolden(backend, cases, 5e-3);
      return backend.dispose();
    }
    const device = await (await gpu!.requestAdapter())!.requestDevice();
    const standIn = withShaders(device, inF32);
    const backend = new WebgpuBackend(standIn, variantOf({ subgroupSize: 0, f16: true, unpacksF16: true }), false);
    await assertGolden(backend, cases.filter((_, i) => i % 4 === 0), 1e-4);
    backend.dispose();
    device.destroy();
  }, { seconds: 300 });

  f16('a device has f16 where it says so, understands it, and computes', async () => {
    const device = await (await gpu!.requestAdapter())!.requestDevice();
    const claims = (rewrite: (code: string) => string): GPUDevice =>
      new Proxy(withShaders(device, rewrite), { get: (target, name) => (name === 'features' ? new Set(['shader-f16']) : (Reflect.get(target, name) as unknown)) });
    ok(await probeF16(claims(inF32)));
    ok(!(await probeF16(claims((code) => inF32(code).replace('x.x * x.y', 'x.x * 2.0')))), 'it computes wrongly');
    ok(!(await probeF16(claims((code) => inF32(code).replace('* 1024.0', '* 0.0')))), 'it takes subnormal numbers for 0');
    ok(!(await probeF16(claims((code) => code.replace('bitcast<vec2<f16>>', 'unknown')))), 'it does not understand');
    ok(!(await probeF16(withShaders(device, inF32))), 'it does not say so');
    device.destroy();
  });

  const integers = suite(`attend, ${adapterName}, codes decoded by integers`, { skip: noAdapter });
  integers('golden cases', async () => {
    const device = await (await gpu!.requestAdapter())!.requestDevice();
    const backend = new WebgpuBackend(device, variantOf({ subgroupSize: 0, f16: false, unpacksF16: false }), true);
    await assertGolden(backend, goldenFiles('attend').filter((_, i) => i % 6 === 0), 1e-4);
    backend.dispose();
  }, { seconds: 300 });
}

if (inNode) testOtherKernels();
