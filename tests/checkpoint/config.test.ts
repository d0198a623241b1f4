import * as assert from 'uvu/assert';
import { FormatError, readScales } from '../../src/index.js';
import { suite } from '../suite.js';
import { assertRefused, checkpoint, f32, fp8Scheme, json, model, numbers, readTold } from './fixtures.js';

const test = suite('checkpoint/config');

const both = { 'model.layers.0.self_attn.attn.kv_scale': f32([1], 0.25), 'model.layers.1.self_attn.attn.kv_scale': f32([1], 0.25) };
const scheme = { num_bits: 8, type: 'float', strategy: 'tensor', dynamic: false, symmetric: true };
const quantized = (block: object, more: object = {}): object => ({ ...model, quantization_config: block, ...more });
const quark = (dtype: string, more: object = {}): object => ({ quant_method: 'quark', kv_cache_quant_config: { '*k_proj': { output_tensors: { dtype, qscheme: 'per_tensor', is_dynamic: false } }, '*v_proj': { output_tensors: { dtype, qscheme: 'per_tensor' } } }, ...more });

const forms: readonly (readonly [string, object, string, boolean])[] = [
  ['kv_cache_scheme of compressed-tensors', quantized({ kv_cache_scheme: scheme }), 'e4m3fn', false],
  ['kv_cache_scheme of ModelOpt, without a strategy', quantized({ quant_method: 'modelopt', kv_cache_scheme: { dynamic: false, num_bits: 8, type: 'float' } }), 'e4m3fn', false],
  ['kv_cache_scheme of int8', quantized({ kv_cache_scheme: { ...scheme, type: 'int' } }), 'int8', false],
  ['kv_cache_scheme "static" of AutoFP8', quantized({ quant_method: 'fp8', kv_cache_scheme: 'static' }), 'e4m3fn', false],
  ['kv_cache_scheme "FP8"', quantized({ kv_cache_scheme: 'FP8' }), 'e4m3fn', false],
  ['compression_config, nested', { text_config: { ...model, compression_config: { kv_cache_scheme: scheme } } }, 'e4m3fn', false],
  ['quantization_config of a part named llm_config', { llm_config: { ...model, quantization_config: { kv_cache_scheme: { ...scheme, type: 'int' } } } }, 'int8', false],
  ['hf_quant_config.json as quantization_config', quantized({ quant_method: 'modelopt', producer: { name: 'modelopt' }, quantization: { kv_cache_quant_algo: 'INT8' } }), 'int8', false],
  ['kv_cache_quant_algo', quantized({ kv_cache_quant_algo: 'INT8' }), 'int8', false],
  ['quantization of TensorRT-LLM', { ...model, quantization: { quant_algo: 'FP8', kv_cache_quant_algo: 'FP8' } }, 'e4m3fn', false],
  ['kv_cache_quant_algo "FP8_E5M2"', quantized({ kv_cache_quant_algo: 'FP8_E5M2' }), 'e5m2', false],
  ['a part named language_config', { language_config: { ...model, ...fp8Scheme } }, 'e4m3fn', false],
  ['names of GPT-2', { n_layer: 2, n_head: 2, n_embd: 16, ...fp8Scheme }, 'e4m3fn', false],
  ['Quark of e5m2', quantized(quark('fp8_e5m2', { kv_cache_post_rope: true })), 'e5m2', false],
  ['Quark', quantized(quark('fp8_e4m3')), 'e4m3fn', true],
  ['Quark before RoPE', quantized(quark('fp8_e4m3', { kv_cache_post_rope: false })), 'e4m3fn', true],
  ['Quark after RoPE', quantized(quark('fp8_e4m3', { kv_cache_post_rope: true })), 'e4m3fn', false],
  ['Quark of old', quantized({ quant_method: 'quark', export: { kv_cache_group: ['*k_proj', '*v_proj'] }, kv_cache_quant_config: {}, layer_quant_config: { '*k_proj': { output_tensors: { dtype: 'fp8_e4m3' } } } }), 'e4m3fn', true],
];

for (const [name, config, dtype, beforeRope] of forms) {
  test(`reads ${name}`, async () => {
    const { scales, warnings } = await readTold(checkpoint(both, config));
    assert.is(scales.dtype, dtype);
    assert.is(scales.granularity, 'tensor');
    assert.is(scales.beforeRope, beforeRope);
    assert.is(scales.layers.length, 2);
    assert.match(scales.report.dtypeFrom ?? '', /^config\.json: /);
    assert.is(warnings.length, Number(beforeRope), warnings.join('\n'));
  });
}

test('Quark that says after RoPE is believed, whatever the names are', async () => {
  const names = Object.fromEntries(['0', '1'].flatMap((n) => ['k', 'v'].map((side) => [`model.layers.${n}.self_attn.${side}_proj.output_scale`, f32([], 0.25)])));
  assert.is((await readTold(checkpoint(names, quantized(quark('fp8_e4m3', { kv_cache_post_rope: true }))))).scales.beforeRope, false);
});

for (const algorithm of ['FP8', 'INT8'] as const) {
  test(`reads hf_quant_config.json of ${algorithm}`, async () => {
    const quantConfig = json({ producer: { name: 'modelopt' }, quantization: { quant_algo: 'FP8', kv_cache_quant_algo: algorithm } });
    const { scales, warnings } = await readTold({ ...checkpoint(both, model), 'hf_quant_config.json': quantConfig });
    assert.is(scales.dtype, algorithm === 'FP8' ? 'e4m3fn' : 'int8');
    assert.is(scales.report.dtypeFrom, 'hf_quant_config.json: quantization.kv_cache_quant_algo');
    assert.equal(warnings, []);
  });
}

test('without a scale of keys none was measured before RoPE', async () => {
  const { scales, warnings } = await readTold(checkpoint({}, quantized(quark('fp8_e4m3'))));
  assert.is(scales.beforeRope, false);
  assert.is(warnings.length, 1, warnings.join('\n'));
});

test('a strategy "channel" is that of scales per channel', async () => {
  const config = quantized({ kv_cache_scheme: { ...scheme, strategy: 'channel' } }, { num_hidden_layers: 1 });
  const values = Array.from({ length: 16 }, (_, i) => (i + 1) / 64);
  const { scales } = await readTold(checkpoint({ 'model.layers.0.self_attn.attn.kv_scale': f32([2, 1, 8], ...values) }, config));
  assert.is(scales.granularity, 'channel');
  assert.is(scales.report.stated, 'channel');
  await assertRefused(checkpoint(both, config), /expected a scale per channel, as .* says, got one per tensor/, RangeError);
});

test('heads and their dims follow from other numbers', async () => {
  const config = { num_hidden_layers: 1, num_attention_heads: 4, hidden_size: 32, quantization_config: { kv_cache_scheme: 'static' } };
  const place = (shape: number[], count: number) => checkpoint({ 'model.layers.0.self_attn.attn.kv_scale': f32(shape, ...Array<number>(count).fill(0.25)) }, config);
  assert.is((await readTold(place([4], 4))).scales.granularity, 'head');
  assert.is((await readTold(place([4, 1, 8], 32))).scales.granularity, 'channel');
  await assertRefused(place([2], 2), /expected shape \[1\], \[4\] or \[4, 1, 8\], got \[2\]/, RangeError);
  await assertRefused(place([4, 1, 16], 64), /expected shape \[1\], \[4\] or \[4, 1, 8\]/, RangeError);
});

test('layers are as many as a model says, under any of their names', async () => {
  for (const name of ['num_hidden_layers', 'n_layer', 'num_layers', 'n_layers']) assert.is((await readTold(checkpoint(both, { [name]: 3, ...fp8Scheme }))).scales.layers.length, 3, name);
});

test('config.json stands above params.json', async () => {
  const { scales } = await readTold({ ...checkpoint(both), 'params.json': json({ n_layers: 7 }) });
  assert.is(scales.layers.length, 2);
});

test('reads the legacy JSON, beside a model and alone', async () => {
  const legacy = (dtype: string, ...ranks: object[]) => json({ model_type: 'llama', kv_cache: { dtype, scaling_factor: Object.fromEntries(ranks.map((layers, rank) => [rank, layers])) } });
  const place = { 'config.json': json(model), 'kv_cache_scales.json': legacy('float8_e4m3fn', { 0: 0.25, 1: 0.5 }, { 0: 0.25, 1: 0.5 }) };
  assert.equal(numbers((await readTold(place)).scales), [[[0.25], [0.25]], [[0.5], [0.5]]]);
  for (const [named, dtype] of [['float8_e5m2', 'e5m2'], ['int8', 'int8']] as const) assert.is((await readTold({ ...place, 'kv_cache_scales.json': legacy(named, { 0: 0.25, 1: 0.5 }) })).scales.dtype, dtype);
  const alone = await readTold(legacy('float8_e5m2', { 0: 0.25 }));
  assert.is(alone.scales.dtype, 'e5m2');
  assert.equal(numbers(alone.scales), [[[0.25], [0.25]]]);
  await assertRefused(legacy('float8_e4m3fnuz', { 0: 1 }), /kv_cache\.dtype" expected float8_e4m3fn.*float8_e4m3fnuz/, RangeError);
  await assertRefused(legacy('float8_e4m3fn', { 0: 1 }, { 0: 2 }), /scaling_factor\.1\.0" expected the scales of "the file: kv_cache\.scaling_factor\.0\.0"/, RangeError);
  await assertRefused(legacy('float8_e4m3fn', { 0: 0 }), /scaling_factor\.0\.0" expected a finite scale greater than 0, got number 0/, RangeError);
  await assertRefused(legacy('float8_e4m3fn', { 0: '1' }), /scaling_factor\.0\.0" expected a number/, RangeError);
  await assertRefused(legacy('float8_e4m3fn', { 99999: 1 }), /expected layers from 0 to 4095/, RangeError);
  await assertRefused(json({ kv_cache: { dtype: 'float8_e4m3fn', scaling_factor: [] } }), /scaling_factor" expected an object, got a list/, RangeError);
});

test('what is not quantized stays as it is', async () => {
  for (const config of [model, quantized({ kv_cache_scheme: null }), quantized({ kv_cache_quant_algo: null }), quantized({ kv_cache_quant_algo: 'none' }), quantized({ quant_method: 'quark', kv_cache_quant_config: {}, kv_cache_post_rope: false })]) {
    const scales = await readScales(checkpoint({}, config));
    assert.is(scales.dtype, 'auto');
    assert.equal(scales.layers, [{ dtype: 'auto', modelDtype: 'bf16' }, { dtype: 'auto', modelDtype: 'bf16' }]);
    assert.equal(scales.report.missing, []);
  }
});

test('scales that a configuration denies are read, and it is said', async () => {
  const { scales, warnings } = await readTold(checkpoint(both, quantized({ kv_cache_scheme: null })));
  assert.is(scales.dtype, 'e4m3fn');
  assert.is(scales.report.dtypeFrom, undefined);
  assert.match(warnings.join('\n'), /kv_cache_scheme" says that it is not quantized/);
});

const hybrids = [{ layer_types: ['full_attention', 'linear_attention', 'full_attention'] }, { layers_block_type: ['attention', 'mamba', 'hybrid'] }, { hybrid_override_pattern: '*M*' }, { hybrid_override_pattern: '*-*' }, { hybrid_override_pattern: '*E' }];

for (const hybrid of hybrids) {
  test(`layers without keys and values miss nothing: ${JSON.stringify(hybrid)}`, async () => {
    const config = { ...model, num_hidden_layers: 3, ...hybrid, ...fp8Scheme };
    const { scales, warnings } = await readTold(checkpoint({ 'model.layers.0.self_attn.attn.kv_scale': f32([1], 0.25) }, config));
    assert.equal(scales.report.missing, [{ layer: 2, side: 'k' }, { layer: 2, side: 'v' }]);
    assert.equal(numbers(scales), [[[0.25], [0.25]], [[1], [1]], [[1], [1]]]);
    assert.is(warnings.length, 1);
  });
}

const refused: readonly (readonly [string, object, RegExp])[] = [
  ['NVFP4', quantized({ kv_cache_scheme: 'NVFP4' }), /kv_cache_scheme" expected a cache of 8 bits .*codes are of 4 bits.*"NVFP4"/],
  ['NVFP4 of ModelOpt', quantized({ kv_cache_quant_algo: 'NVFP4' }), /kv_cache_quant_algo" expected a cache of 8 bits/],
  ['NVFP4 of a part', { text_config: {}, llm_config: { quantization_config: { kv_cache_scheme: 'NVFP4' } } }, /config\.json: llm_config\.quantization_config\.kv_cache_scheme" expected a cache of 8 bits/],
  ['an unknown word', quantized({ kv_cache_scheme: 'toString' }), /expected "FP8", "INT8", "static" or null, got "toString"/],
  ['4 bits', quantized({ kv_cache_scheme: { ...scheme, num_bits: 4 } }), /num_bits" expected 8, got 4/],
  ['an unknown type', quantized({ kv_cache_scheme: { ...scheme, type: 'posit' } }), /type" expected "float" or "int", got "posit"/],
  ['dynamic scales', quantized({ kv_cache_scheme: { ...scheme, dynamic: true } }), /dynamic" expected false .*token-head/],
  ['zero points', quantized({ kv_cache_scheme: { ...scheme, symmetric: false } }), /symmetric" expected true/],
  ['an unknown strategy', quantized({ kv_cache_scheme: { ...scheme, strategy: 'constructor' } }), /strategy" expected "tensor", "attn_head"/],
  ['separate schemes', quantized({ kv_cache_scheme: { key: scheme, value: scheme } }), /num_bits" expected 8, got undefined/],
  ['an unknown dtype of Quark', quantized(quark('fp4')), /\*k_proj\.output_tensors\.dtype" expected fp8_e4m3/],
  ['dynamic scales of Quark', quantized({ kv_cache_quant_config: { '*k_proj': { output_tensors: { dtype: 'fp8_e4m3', is_dynamic: true } } } }), /is_dynamic" expected false .*token-head/],
  ['two statements', quantized({ kv_cache_scheme: scheme, kv_cache_quant_algo: 'INT8' }), /kv_cache_quant_algo" expected e4m3fn, as "config\.json: quantization_config\.kv_cache_scheme" says, got int8/],
  ['one scale where the strategy is attn_head', quantized({ kv_cache_scheme: { ...scheme, strategy: 'attn_head' } }), /expected a scale per head, as .* says, got one per tensor/],
  ['a huge number of layers', { ...model, num_hidden_layers: 1e9 }, /num_hidden_layers" expected an integer from 1 to 4096/],
  ['half a head', { ...model, num_key_value_heads: 0.5 }, /num_key_value_heads" expected an integer/],
  ['heads in words', { ...model, num_attention_heads: 'four' }, /num_attention_heads" expected an integer from 1 to 65536, got "four"/],
];

for (const [name, config, reason] of refused) test(`refuses ${name}`, () => assertRefused(checkpoint(both, config), reason, RangeError));

test('names of prototypes are names', async () => {
  const hostile = `{"__proto__":{"num_hidden_layers":7},"constructor":1,"quantization_config":{"__proto__":{"kv_cache_scheme":"NVFP4"}},"num_hidden_layers":2}`;
  const { scales } = await readTold({ ...checkpoint(both), 'config.json': json(hostile) });
  assert.is(scales.layers.length, 2);
  assert.is(({} as Record<string, unknown>).num_hidden_layers, undefined);
});

test('numbers that only Python writes are read', async () => {
  const { scales } = await readTold({ ...checkpoint(both), 'config.json': json('\ufeff{"time_step_limit":[0.0,Infinity,-Infinity,NaN],"num_hidden_layers":2}') });
  assert.is(scales.layers.length, 2);
});

const broken: readonly (readonly [string, string, RegExp])[] = [
  ['nesting without end', '['.repeat(1e6), /config\.json, byte 65: values nest over 64 deep/],
  ['objects without end', '{"a":'.repeat(1e5), /values nest over 64 deep/],
  ['lists without number', `{"a":[${'[],'.repeat(2 ** 20)}[]]}`, /there are over 1048576 values/],
  ['a key that comes twice', '{"num_hidden_layers":1,"num_hidden_layers":2}', /byte 23: the key "num_hidden_layers" comes twice/],
  ['a list', '[]', /byte 0: the file does not hold an object/],
  ['nothing', '', /byte 0: the file ends where a value is expected/],
  ['a word', '{"a":undefined}', /byte 5: a value is not a number/],
  ['an end too early', '{"a":', /byte 5: the file ends/],
  ['more than an object', '{} {}', /byte 3: the file goes on/],
];

for (const [name, text, reason] of broken) test(`refuses config.json of ${name}`, () => assertRefused({ ...checkpoint(both), 'config.json': json(text) }, reason, FormatError));
