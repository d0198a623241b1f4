/** What is written is what is read, and in the form that vLLM and llm-compressor have. */
import { equal, is, match, throws } from 'uvu/assert';
import { parseSafetensors } from '../../src/files/safetensors.js';
import { kvCacheScheme, serializeScales, withKvCacheScheme, type GivenGranularity, type KvScales, type LayerScales } from '../../src/index.js';
import { quantizedFormats, type QuantizedFormat } from '../../src/formats.js';
import { assertSameBits } from '../bits.js';
import { suite } from '../suite.js';
import { json, model, readTold } from './fixtures.js';

const test = suite('scales into checkpoints');

/** Smallest subnormal, largest subnormal, smallest normal, llm-compressor's 1 / 127.5, and others that are no short decimals. */
const odd = Float32Array.of(2 ** -149, 2 ** -126 - 2 ** -149, 2 ** -126, 1 / 127.5, 0.1, 1 / 3, 0.499999, 3.4028234663852886e38);

const KV_HEADS = 2;
const HEAD_DIM = 8;
const counts = { tensor: 1, head: KV_HEADS, channel: KV_HEADS * HEAD_DIM };

function scalesOf(dtype: QuantizedFormat, granularity: GivenGranularity, queries = false): KvScales {
  let next = 0;
  const some = (): Float32Array => Float32Array.from({ length: counts[granularity] }, () => odd[next++ % odd.length]);
  const layers = Array.from({ length: 3 }, (): LayerScales => ({ dtype, granularity, scale: { k: some(), v: some() }, ...(queries && { qScale: some() }) }));
  return { dtype, granularity, layers };
}

function assertSameScales(actual: KvScales, expected: KvScales): void {
  equal([actual.dtype, actual.granularity, actual.layers.length], [expected.dtype, expected.granularity, expected.layers.length]);
  for (const [index, { dtype, granularity, scale, qScale }] of expected.layers.entries()) {
    const layer = actual.layers[index];
    equal([layer.dtype, layer.granularity], [dtype, granularity]);
    assertSameBits(layer.scale.k, scale.k, `k of ${index}`);
    assertSameBits(layer.scale.v, scale.v, `v of ${index}`);
    is(layer.qScale === undefined, qScale === undefined);
    if (qScale) assertSameBits(layer.qScale!, qScale, `q of ${index}`);
  }
}

for (const dtype of quantizedFormats) for (const granularity of Object.keys(counts) as GivenGranularity[]) {
  test(`${dtype}, ${granularity}: the same bits come back, from the file alone and beside a configuration`, async () => {
    for (const queries of [false, true]) {
      const scales = scalesOf(dtype, granularity, queries);
      const file = serializeScales(scales, { headDim: HEAD_DIM, queryHeads: 6 });
      assertSameScales((await readTold(file)).scales, scales);
      const config = { ...model, num_hidden_layers: 3, num_attention_heads: 6 };
      assertSameScales((await readTold({ 'config.json': json(config), 'scales.safetensors': file })).scales, scales);
    }
  });
}

test('a model of one KV head keeps its granularity', async () => {
  for (const [granularity, count] of [['head', 1], ['channel', HEAD_DIM]] as const) {
    const scale = Float32Array.from({ length: count }, (_, i) => 1 / (i + 3));
    const scales: KvScales = { dtype: 'e4m3fn', granularity, layers: [{ dtype: 'e4m3fn', granularity, scale: { k: scale, v: scale }, qScale: scale }] };
    assertSameScales((await readTold(serializeScales(scales, { headDim: HEAD_DIM, queryHeads: 4 }))).scales, scales);
  }
});

/** What engines ask of names, dtypes and shapes. */
const shapes = {
  // vLLM, kv_cache.py: create_weights of BaseKVCacheMethod and CompressedTensorsKVCacheMethod has one number
  tensor: { k: [1], v: [1], q: [1] },
  // llm-compressor's attn_head; vLLM, _tp_aware_loader: flattened, q_scale of all query heads
  head: { k: [2, 1, 1], v: [2, 1, 1], q: [6, 1, 1] },
  // No other reader: as head, with the dims
  channel: { k: [2, 1, 8], v: [2, 1, 8], q: [6, 1, 8] },
} as const;

test('names, dtype, shapes and metadata', () => {
  for (const granularity of Object.keys(shapes) as GivenGranularity[]) {
    const { metadata, tensors } = parseSafetensors(serializeScales(scalesOf('e5m2', granularity, true), { headDim: HEAD_DIM, queryHeads: 6 }), 'scales');
    equal(Object.fromEntries(metadata), { format: 'pt', fp8_kv_scales: '1', dtype: 'e5m2', granularity });
    is(tensors.size, 9);
    for (const side of ['k', 'v', 'q'] as const) for (const layer of [0, 1, 2]) {
      const { dtype, shape } = tensors.get(`model.layers.${layer}.self_attn.${side}_scale`)!;
      equal([dtype, shape], ['F32', shapes[granularity][side]]);
    }
  }
});

test('scales of queries are those of all query heads that share a KV head', () => {
  const scales = scalesOf('e4m3fn', 'head', true);
  const { tensors } = parseSafetensors(serializeScales(scales, { queryHeads: 6 }), 'scales');
  const written = new Float32Array(tensors.get('model.layers.0.self_attn.q_scale')!.data.slice().buffer);
  const [a, b] = scales.layers[0].qScale!;
  assertSameBits(written, Float32Array.of(a, a, a, b, b, b));
});

/** What vLLM's validate_kv_cache_scheme and compressed-tensors' QuantizationArgs accept. */
const schemes = [
  ['e4m3fn', 'tensor', { num_bits: 8, type: 'float', strategy: 'tensor', dynamic: false, symmetric: true }],
  ['e4m3fn', 'head', { num_bits: 8, type: 'float', strategy: 'attn_head', dynamic: false, symmetric: true }],
  ['int8', 'head', { num_bits: 8, type: 'int', strategy: 'attn_head', dynamic: false, symmetric: true }],
] as const;

test('kv_cache_scheme', () => {
  for (const [dtype, granularity, expected] of schemes) equal(kvCacheScheme({ dtype, granularity }), expected);
  throws(() => kvCacheScheme({ dtype: 'e5m2', granularity: 'tensor' }), /"dtype" expected e4m3fn or int8, got e5m2: a kv_cache_scheme says/);
  throws(() => kvCacheScheme({ dtype: 'e4m3fn', granularity: 'channel' }), /"granularity" expected tensor or head, got "channel": readers of a kv_cache_scheme/);
});

const scales = scalesOf('e4m3fn', 'head');

test('a configuration gets the block, with all keys that vLLM looks for', () => {
  for (const config of [model, { ...model, quantization_config: null }]) {
    const before = structuredClone(config);
    const { quantization_config: block, ...rest } = withKvCacheScheme(config, scales);
    equal(config, before);
    equal(rest, model);
    // CompressedTensorsConfig.from_config reads config_groups, ignore and format; QuantizationStatus and CompressionFormat have these words
    equal(block, {
      quant_method: 'compressed-tensors', format: 'dense', quantization_status: 'frozen', config_groups: {}, ignore: [], global_compression_ratio: null, kv_cache_scheme: schemes[1][2],
    });
  }
});

test('what compressed-tensors says already is kept, but for its scheme', () => {
  const weights = { quant_method: 'compressed-tensors', format: 'float-quantized', config_groups: { group_0: { targets: ['Linear'] } }, ignore: ['lm_head'], kv_cache_scheme: null, version: '0.10' };
  equal(withKvCacheScheme({ ...model, quantization_config: weights }, scales).quantization_config, { ...weights, kv_cache_scheme: schemes[1][2] });
});

test('the block is read as what it says', async () => {
  const config = withKvCacheScheme({ ...model, num_hidden_layers: 3 }, scales);
  const { report } = (await readTold({ 'config.json': json(config), 'scales.safetensors': serializeScales(scales) })).scales;
  is(report.stated, 'head');
  const { report: alone } = (await readTold({ 'config.json': json(config) })).scales;
  match(alone.dtypeFrom!, 'config.json: quantization_config.kv_cache_scheme');
});

const wrong = (change: Partial<LayerScales>): KvScales => ({ ...scales, layers: [scales.layers[0], { ...scales.layers[1], ...change }] });
const two = Float32Array.of(1, 2);

const refused: readonly (readonly [() => unknown, RegExp])[] = [
  [() => serializeScales({ ...scales, dtype: 'f16' as 'int8' }), /"dtype" expected one of e4m3fn, e5m2, int8, .*, got "f16"/],
  [() => serializeScales({ ...scales, granularity: 'group' as 'head' }), /"granularity" expected tensor, head, channel, got "group"/],
  [() => serializeScales(wrong({ dtype: 'int8' })), /"layers\[1\]" expected e4m3fn and head, as all scales, got int8 and head/],
  [() => serializeScales(wrong({ scale: { k: two, v: Float32Array.of(1) } })), /"layers\[1\]\.scale\.v" expected 2 scales, got 1/],
  [() => serializeScales(wrong({ scale: { k: two, v: Float32Array.of(1, 0) } })), /"layers\[1\]\.scale\.v\[1\]" expected a finite scale greater than 0, got number 0/],
  [() => serializeScales(wrong({ scale: { k: Float32Array.of(NaN, 1), v: two } })), /"layers\[1\]\.scale\.k\[0\]" expected a finite scale greater than 0, got number NaN/],
  [() => serializeScales(wrong({ scale: { k: new Float32Array(0), v: two } })), /"layers\[1\]\.scale\.k" expected some scales, got 0/],
  [() => serializeScales(wrong({ scale: { k: [1, 2] as unknown as Float32Array, v: two } })), /"layers\[1\]\.scale\.k" expected a Float32Array, got Array/],
  [() => serializeScales(wrong({ qScale: Float32Array.of(1) })), /"layers\[1\]\.qScale" expected 2 scales, got 1/],
  [() => serializeScales(wrong({ qScale: two })), /"queryHeads" expected an integer of at least 1, got undefined/],
  [() => serializeScales(wrong({ qScale: two }), { queryHeads: 5 }), /"queryHeads" expected a multiple of 2 KV heads, got 5/],
  [() => serializeScales(scalesOf('int8', 'channel')), /"headDim" expected an integer of at least 1, got undefined/],
  [() => serializeScales(scalesOf('int8', 'channel'), { headDim: 3 }), /"layers\[0\]\.scale\.k" expected a multiple of 3 scales, got 16/],
  [() => withKvCacheScheme({ quantization_config: { quant_method: 'fp8' } }, scales), /"quantization_config\.quant_method" expected compressed-tensors, whose kv_cache_scheme this is, got "fp8"/],
  [() => withKvCacheScheme({ quantization_config: {} }, scales), /"quantization_config\.quant_method" expected compressed-tensors, whose kv_cache_scheme this is, got undefined/],
  [() => withKvCacheScheme({ compression_config: {} }, scales), /"compression_config" expected to be absent/],
  [() => withKvCacheScheme([] as unknown as { [field: string]: unknown }, scales), /"config" expected an object, got Array/],
  [() => withKvCacheScheme(model, scalesOf('e5m2', 'head')), /"dtype" expected e4m3fn or int8, got e5m2/],
];

test('what does not fit is refused by name', () => {
  for (const [work, reason] of refused) throws(work, reason);
});
