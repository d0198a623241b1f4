import * as assert from 'uvu/assert';
import { FormatError, KvCache, onWarning, readScales, wasmBackend } from '../../src/index.js';
import { suite } from '../suite.js';
import { assertSameBits } from '../bits.js';
import { mutations } from '../files/attacks/attack.js';
import { assertRefused, checkpoint, f32, fp8Scheme, model, numbers, of, readTold, tensorFile } from './fixtures.js';

const test = suite('checkpoint/read');

const layer = (n: number, name: string): string => `model.layers.${n}.self_attn.${name}`;
const one = { ...model, num_hidden_layers: 1 };
const pair = (k: ReturnType<typeof f32>, v = k) => ({ [layer(0, 'k_scale')]: k, [layer(0, 'v_scale')]: v });
const ramp = (count: number): number[] => Array.from({ length: count }, (_, i) => (i + 1) / 64);

for (const shape of [[], [1], [1, 1], [1, 1, 1]]) {
  test(`a scale of shape [${shape.join(', ')}] is the tensor's`, async () => {
    const { scales } = await readTold(checkpoint(pair(f32(shape, 0.25)), one));
    assert.is(scales.granularity, 'tensor');
    assert.equal(numbers(scales), [[[0.25], [0.25]]]);
  });
}

for (const shape of [[2], [2, 1], [2, 1, 1], [1, 2, 1, 1]]) {
  test(`scales of shape [${shape.join(', ')}] are the heads'`, async () => {
    for (const config of [one, { num_hidden_layers: 1 }]) {
      const { scales } = await readTold(checkpoint(pair(f32(shape, 0.25, 0.5), f32(shape, 0.125, 0.375)), config));
      assert.is(scales.granularity, 'head');
      assert.equal(numbers(scales), [[[0.25, 0.5], [0.125, 0.375]]]);
    }
  });
}

for (const shape of [[2, 8], [2, 1, 8], [1, 2, 1, 8], [16]]) {
  test(`scales of shape [${shape.join(', ')}] are the channels'`, async () => {
    const { scales } = await readTold(checkpoint(pair(f32(shape, ...ramp(16))), one));
    assert.is(scales.granularity, 'channel');
    assert.equal(numbers(scales), [[ramp(16), ramp(16)]]);
  });
}

for (const shape of [[3], [4, 1, 1], [2, 2], [8, 2], [2, 2, 8], [8], [32]]) {
  test(`refuses scales of shape [${shape.join(', ')}] for 2 heads of 8 dims`, () =>
    assertRefused(checkpoint(pair(f32(shape, ...ramp(shape.reduce((a, b) => a * b, 1)))), one), /self_attn\.k_scale" expected shape \[1\], \[2\] or \[2, 1, 8\], got \[/, RangeError));
}

test('refuses channels that no head has, where the model is not known', () =>
  assertRefused(checkpoint(pair(f32([2, 1, 6], ...ramp(12))), { num_hidden_layers: 1 }), /expected shape \[1\], \[heads\] or \[heads, 1, dim\], got \[2, 1, 6\]/, RangeError));

test('F16, BF16 and F64 are widened', async () => {
  const dtypes = [of('F16', [1], Uint16Array.of(0x2e66)), of('BF16', [1], Uint16Array.of(0x3dcc)), of('F64', [1], Float64Array.of(0.1)), of('F32', [1], Float32Array.of(0.1))];
  const tensors = Object.fromEntries(dtypes.map((tensor, n) => [layer(n, 'attn.kv_scale'), tensor]));
  const { scales } = await readTold(checkpoint(tensors, { ...model, num_hidden_layers: 4 }));
  assert.equal(scales.layers.map(({ scale }) => scale.k[0]), [0.0999755859375, 0.099609375, Math.fround(0.1), Math.fround(0.1)]);
});

for (const dtype of ['F8_E8M0', 'F8_E4M3', 'U8', 'I32'] as const) {
  test(`refuses scales of ${dtype}`, () => {
    const data = dtype === 'I32' ? Int32Array.of(1) : Uint8Array.of(127);
    return assertRefused(checkpoint(pair(of(dtype, [1], data)), one), new RegExp(`model\\.safetensors: .*k_scale" expected F32, F16, BF16, F64, got "${dtype}"`), TypeError);
  });
}

for (const bad of [0, -0, -1, NaN, Infinity, -Infinity]) {
  test(`refuses a scale of ${bad}`, async () => {
    await assertRefused(checkpoint(pair(f32([1], bad), f32([1], 1)), one), /model\.safetensors: model\.layers\.0\.self_attn\.k_scale" expected a finite scale greater than 0/, RangeError);
    await assertRefused(checkpoint(pair(f32([2], 1, 1), f32([2], 1, bad)), one), /self_attn\.v_scale\[1\]" expected a finite scale greater than 0/, RangeError);
  });
}

test('refuses F64 that f32 has as 0, and a reciprocal of what has none', async () => {
  await assertRefused(checkpoint({ [layer(0, 'attn.kv_scale')]: of('F64', [1], Float64Array.of(1e-60)) }, one), /expected a finite scale/, RangeError);
  await assertRefused(checkpoint({ 'layers.0.kv_cache_rcp_scaling_factor': f32([1], 1e-45) }, one), /expected a finite scale/, RangeError);
});

test('what is missing is 1, and it is said once', async () => {
  const { scales, warnings } = await readTold(checkpoint({ [layer(1, 'k_scale')]: f32([2], 0.25, 0.5), [layer(1, 'v_scale')]: f32([2], 0.5, 0.5) }, model));
  assert.equal(scales.report.missing, [{ layer: 0, side: 'k' }, { layer: 0, side: 'v' }]);
  assert.equal(numbers(scales)[0], [[1, 1], [1, 1]]);
  assert.is(warnings.length, 1);
  assert.match(warnings[0], /no scale for layer and side 0\.k, 0\.v: 1 is taken/);
});

test('a cache that is said to be FP8 and has no scales at all has 1', async () => {
  const { scales, warnings } = await readTold(checkpoint({}, { ...model, ...fp8Scheme }));
  assert.equal(numbers(scales), [[[1], [1]], [[1], [1]]]);
  assert.is(scales.report.missing.length, 4);
  assert.is(warnings.length, 1);
});

for (const side of ['k', 'v'] as const) {
  test(`${side} alone is taken for both`, async () => {
    const { scales, warnings } = await readTold(checkpoint({ [layer(0, `${side}_scale`)]: f32([1], 0.25) }, one));
    assert.equal(numbers(scales), [[[0.25], [0.25]]]);
    assert.equal(scales.report.duplicated, [{ layer: 0, side: side === 'k' ? 'v' : 'k' }]);
    assert.is(warnings.length, 1);
    assert.is.not(scales.layers[0].scale.k.buffer, scales.layers[0].scale.v.buffer);
  });
}

test('large scales are reported, and scales that are all 1', async () => {
  const large = await readTold(checkpoint(pair(f32([1], 0.75), f32([1], 0.5)), one));
  assert.equal(large.scales.report.large, [{ layer: 0, side: 'k', largest: 0.75 }]);
  assert.match(large.warnings.join(), /over 0\.5 for layer and side 0\.k/);
  const ones = await readTold(checkpoint(pair(f32([1], 1)), one));
  assert.is(ones.scales.report.allOne, true);
  assert.equal(ones.scales.report.large, []);
  assert.match(ones.warnings.join(), /all scales are exactly 1/);
});

test('layers and sides of different granularities are refused', async () => {
  await assertRefused(checkpoint(pair(f32([1], 0.5), f32([2], 0.5, 0.5)), one), /v_scale" expected a scale per tensor, as ".*k_scale" is, got one per head/, RangeError);
  const layers = { [layer(0, 'attn.kv_scale')]: f32([2], 1, 2), [layer(1, 'attn.kv_scale')]: f32([1], 1) };
  await assertRefused(checkpoint(layers, model), /layers\.1\.self_attn\.attn\.kv_scale" expected a scale per head, as ".*layers\.0.*" is/, RangeError);
});

test('two names for one side must agree', async () => {
  const twice = (second: number) => checkpoint({ ...pair(f32([1], 0.25)), [layer(0, 'k_proj.k_scale')]: f32([1], second) }, one);
  assert.equal(numbers((await readTold(twice(0.25))).scales), [[[0.25], [0.25]]]);
  await assertRefused(twice(0.26), /expected the scales of "model\.safetensors: .*", as both are of the same layer/, RangeError);
  await assertRefused(checkpoint({ 'layers.0.kv_cache_scaling_factor': f32([1], 0.25), 'layers.0.kv_cache_rcp_scaling_factor': f32([1], 0.25) }, one), /expected the scales of/, RangeError);
});

test('scales of queries have the shape of the keys\'', async () => {
  const reduce = async (k: ReturnType<typeof f32>, q: ReturnType<typeof f32>): Promise<number[]> => {
    const { scales } = await readTold(checkpoint({ ...pair(k), [layer(0, 'q_scale')]: q }, one));
    return [...scales.layers[0].qScale!];
  };
  const heads = f32([2], 0.25, 0.25);
  assert.equal(await reduce(heads, f32([4, 1, 1], 0.125, 0.25, 0.5, 0.375)), [0.25, 0.5]);
  assert.equal(await reduce(heads, f32([2], 0.125, 0.25)), [0.125, 0.25]);
  assert.equal(await reduce(heads, f32([1], 0.125)), [0.125, 0.125]);
  assert.equal(await reduce(f32([1], 0.25), f32([4], 0.125, 0.25, 0.5, 0.375)), [0.5]);
  assert.equal(await reduce(f32([2, 1, 8], ...ramp(16)), f32([4, 1, 8], ...ramp(32))), [...ramp(32).slice(8, 16), ...ramp(32).slice(24)]);
  assert.equal(await reduce(heads, f32([4, 1, 8], ...ramp(32))), [16 / 64, 32 / 64]);
});

/** As this package writes them. */
const written = (dtype: string, granularity: string, shape: number[], values: number[]) =>
  tensorFile(
    Object.fromEntries([0, 1].flatMap((n) => ['k', 'v', 'q'].map((side, i) => [layer(n, `${side}_scale`), f32(shape, ...values.map((value) => value * (n + i + 1)))]))),
    { fp8_kv_scales: '1', dtype, granularity },
  );

for (const dtype of ['e4m3fn', 'e5m2', 'int8']) {
  for (const [granularity, shape] of [['tensor', [1]], ['head', [2, 1, 1]], ['head', [1, 1, 1]], ['channel', [2, 1, 8]], ['channel', [1, 1, 8]]] as const) {
    test(`reads its own ${dtype} per ${granularity}, [${shape.join(', ')}], to the same bits`, async () => {
      const values = ramp(shape.reduce<number>((a, b) => a * b, 1)).map((value) => Math.fround(value * 0.1));
      const { scales, warnings } = await readTold(written(dtype, granularity, [...shape], values));
      assert.is(scales.dtype, dtype);
      assert.is(scales.granularity, granularity);
      for (const [n, { scale, qScale }] of scales.layers.entries()) {
        for (const [i, side] of [scale.k, scale.v, qScale!].entries()) assertSameBits(side, Float32Array.from(values, (value) => value * (n + i + 1)));
      }
      assert.equal(warnings, []);
      assert.is(scales.report.dtypeFrom, 'the file: __metadata__');
    });
  }
}

test('its own metadata stand above config.json, and are checked', async () => {
  const place = { ...checkpoint({}, { ...model, ...fp8Scheme }), 'model.safetensors': written('e5m2', 'head', [2, 1, 1], [0.125, 0.0625]) };
  const { scales } = await readTold(place);
  assert.is(scales.dtype, 'e5m2');
  assert.is(scales.granularity, 'head');
  await assertRefused(written('e4m3', 'head', [2, 1, 1], [1, 1]), /__metadata__\.dtype" expected one of/, TypeError);
  await assertRefused(written('f16', 'head', [2, 1, 1], [1, 1]), /__metadata__\.dtype" expected one of e4m3fn, e5m2, int8, .*, got "f16"/, TypeError);
  await assertRefused(written('e4m3fn', 'token', [2, 1, 1], [1, 1]), /__metadata__\.granularity" expected tensor, head, channel, got "token"/, RangeError);
  await assertRefused(written('e4m3fn', 'tensor', [2, 1, 1], [1, 1]), /expected a scale per tensor, as "the file: __metadata__" says, got one per head/, RangeError);
  await assertRefused(tensorFile({}, { fp8_kv_scales: '2' }), /fp8_kv_scales" expected "1", got "2"/, RangeError);
});

test('files of scales that say different things are refused', async () => {
  const place = { 'a.safetensors': written('e5m2', 'tensor', [1], [0.125]), 'b.safetensors': written('e4m3fn', 'tensor', [1], [0.125]) };
  await assertRefused(place, /"b\.safetensors: __metadata__" expected e5m2 and tensor, as "a\.safetensors: __metadata__" says, got e4m3fn and tensor/, RangeError);
});

test('what is read goes into a cache as it stands', async () => {
  const read = [
    await readScales(checkpoint({ ...pair(f32([2], 0.25, 0.5), f32([2], 0.125, 0.25)), [layer(0, 'q_scale')]: f32([4], 1, 1, 1, 1) }, one)),
    await readScales(checkpoint({}, one)),
  ];
  for (const scales of read) {
    using backend = await wasmBackend();
    using cache = new KvCache(backend, { layers: scales.layers, queryHeads: 4, kvHeads: 2, headDim: 8, capacity: 16 });
    const sequence = cache.createSequence();
    const step = cache.begin([{ sequence, tokens: 1 }]);
    const value = Float32Array.from({ length: 16 }, (_, i) => i / 8);
    step.append(0, value, value);
    const { out } = await step.attend(0, new Float32Array(32));
    assert.equal([...out].slice(0, 4), [0, 0.125, 0.25, 0.375]);
    assert.equal([...out].slice(16, 20), [1, 1.125, 1.25, 1.375]);
    step.commit();
  }
});

/** A file of these entries, and of 8 bytes of data. */
function claimed(entries: string, ...data: number[]): Uint8Array {
  const header = new TextEncoder().encode(`{${entries}}`);
  const bytes = new Uint8Array(8 + header.length + 8);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(header.length), true);
  bytes.set(header, 8);
  for (const [i, value] of data.entries()) view.setFloat32(8 + header.length + 4 * i, value, true);
  return bytes;
}

test('weights may be of any dtype, scales may not', async () => {
  for (const dtype of ['F4', 'F6_E2M3', 'F8_E4M3FNUZ', 'what is to come']) {
    const scale = `"${layer(0, 'attn.kv_scale')}":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`;
    const { scales } = await readTold(claimed(`${scale},"weight":{"dtype":"${dtype}","shape":[8],"data_offsets":[4,8]}`, 0.25));
    assert.equal(numbers(scales), [[[0.25], [0.25]]]);
    await assertRefused(claimed(scale.replace('F32', dtype), 0.25), new RegExp(`kv_scale" expected F32, F16, BF16, F64, got "${dtype}"`), TypeError);
  }
});

test('scales that are many only together are refused before they are read', async () => {
  const mega = 2 ** 20;
  const entries = Array.from({ length: 17 }, (_, n) => `"${layer(n, 'attn.kv_scale')}":{"dtype":"F32","shape":[${mega}],"data_offsets":[${4 * mega * n},${4 * mega * (n + 1)}]}`);
  await assertRefused(claimed(entries.join(',')), /the scales up to tensor "model\.layers\.16\.self_attn\.attn\.kv_scale" are over 16777216/, FormatError);
  await assertRefused(claimed(entries.slice(0, 16).join(',')), /the file ends before tensor "model\.layers\.0/, FormatError);
});

test('a file that is cut, or claims what no scale has, is refused', async () => {
  const file = tensorFile(pair(f32([1], 0.25)));
  await assertRefused(file.slice(0, -1), /the file ends before tensor "model\.layers\.0\.self_attn\.[kv]_scale" does/, FormatError);
  const claim = (shape: string, offsets: string): Uint8Array => claimed(`"${layer(0, 'k_scale')}":{"dtype":"F32","shape":${shape},"data_offsets":${offsets}}`);
  // Where the file ends is not known then, only which entry is wrong.
  await assertRefused(claim('[1]', '[100,104]'), /^the file, byte 9: the file ends before tensor/, FormatError);
  for (const length of [0, 7, 8, 20]) await assertRefused(file.slice(0, length), /the file, byte 0: /, FormatError);
  await assertRefused(claim('[2000000]', '[0,8000000]'), /expected 1 to 1048576 scales/, FormatError);
  await assertRefused(claim('[0]', '[0,0]'), /expected 1 to 1048576 scales/, FormatError);
  await assertRefused(claim('[1]', '[0,8]'), /expected 4 bytes, got 8/, FormatError);
  await assertRefused(claim('[1]', '[8,4]'), /ends at 4, before it begins at 8/, FormatError);
  await assertRefused(claim('[9007199254740991,9]', '[0,4]'), /over 2\^53 - 1/, FormatError);
});

test('files with some bytes replaced are read or refused, nothing else', async () => {
  const valid = checkpoint({ ...pair(f32([2], 0.25, 0.5)), [layer(1, 'attn.kv_scale')]: f32([2], 0.25, 0.5) }, { ...model, quantization_config: { kv_cache_scheme: 'static' } });
  const end = onWarning(() => {});
  let readable = 0;
  try {
    for (const file of ['config.json', 'model.safetensors'] as const) {
      for (const bytes of mutations(valid[file], 1000, 0x5ca1e)) {
        try {
          await readScales({ ...valid, [file]: bytes });
          readable++;
        } catch (error) {
          const known = error instanceof FormatError || error instanceof RangeError || (error instanceof TypeError && error.message.includes(' expected '));
          if (!known) throw new Error(`${file}: ${Buffer.from(bytes).toString('latin1')}`, { cause: error });
        }
      }
    }
  } finally {
    end();
  }
  assert.ok(readable > 0 && readable < 2000, `${readable} of 2000 were read`);
});
