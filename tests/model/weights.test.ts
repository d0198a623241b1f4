import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { withKvCacheScheme } from '../../src/index.js';
import { readWeights } from '../../src/model/folder.js';
import { gatherWeights } from '../../src/model/weights.js';
import { parseConfig } from '../../src/model/config.js';
import { serializeSafetensors } from '../../src/files/safetensors.js';
import type { Tensor } from '../../src/files/tensor.js';
import { assertSameBits } from '../bits.js';
import { suite } from '../suite.js';

const test = suite('model/weights');

const orator = JSON.parse(readFileSync(fileURLToPath(new URL('../../demo/models/orator/config.json', import.meta.url)), 'utf8'));

const tiny = {
  ...orator, hidden_size: 4, intermediate_size: 4, num_hidden_layers: 1, num_attention_heads: 1, num_key_value_heads: 1, head_dim: 8, vocab_size: 4,
};

/** All weights of a model of shape `tiny`: zeros of one dtype. */
function tinyTensors(dtype: 'F32' | 'F16' | 'BF16'): Map<string, Tensor> {
  const layer = 'model.layers.0';
  const shapes: { readonly [name: string]: readonly number[] } = {
    'model.embed_tokens.weight': [4, 4],
    [`${layer}.input_layernorm.weight`]: [4],
    [`${layer}.self_attn.q_proj.weight`]: [8, 4],
    [`${layer}.self_attn.k_proj.weight`]: [8, 4],
    [`${layer}.self_attn.v_proj.weight`]: [8, 4],
    [`${layer}.self_attn.o_proj.weight`]: [4, 8],
    [`${layer}.post_attention_layernorm.weight`]: [4],
    [`${layer}.mlp.gate_proj.weight`]: [4, 4],
    [`${layer}.mlp.up_proj.weight`]: [4, 4],
    [`${layer}.mlp.down_proj.weight`]: [4, 4],
    'model.norm.weight': [4],
  };
  const bytes = dtype === 'F32' ? 4 : 2;
  const zeros = ([name, shape]: [string, readonly number[]]): [string, Tensor] => {
    return [name, { dtype, shape, data: new Uint8Array(shape.reduce((count, size) => count * size, bytes)) }];
  };
  return new Map(Object.entries(shapes).map(zeros));
}

/** The final norm's four values, given as 16-bit patterns, after reading. */
function widened(dtype: 'F16' | 'BF16', bits: number[]): Float32Array {
  const tensors = tinyTensors(dtype);
  tensors.set('model.norm.weight', { dtype, shape: [4], data: new Uint8Array(Uint16Array.from(bits).buffer) });
  return gatherWeights(parseConfig(tiny, 'config.json'), tensors, 'model.safetensors').finalNorm;
}

test('widens f16 and bf16 exactly', () => {
  assertSameBits(widened('BF16', [0x3f80, 0x8000, 0x0001, 0x7f80]), Float32Array.of(1, -0, 2 ** -133, Infinity));
  assertSameBits(widened('F16', [0x3c00, 0x8000, 0x0001, 0x7c00]), Float32Array.of(1, -0, 2 ** -24, Infinity));
  assertSameBits(widened('F16', [0x7bff, 0x83ff, 0x0400, 0xfc00]), Float32Array.of(65504, -1023 * 2 ** -24, 2 ** -14, -Infinity));
});

test('takes the head from the embedding, or the embedding from the head, where they are tied', () => {
  const config = parseConfig(tiny, 'config.json');
  const tensors = tinyTensors('F32');
  const tied = gatherWeights(config, tensors, 'm');
  assert.is(tied.head, tied.embedding);
  tensors.set('lm_head.weight', tensors.get('model.embed_tokens.weight')!);
  tensors.delete('model.embed_tokens.weight');
  const other = gatherWeights(config, tensors, 'm');
  assert.is(other.head, other.embedding);
  assert.throws(() => gatherWeights({ ...config, tiedEmbeddings: false }, tensors, 'm'), /"m: model.embed_tokens.weight" is missing/);
});

test('names the tensor that does not fit', () => {
  const config = parseConfig(tiny, 'config.json');
  const name = 'model.layers.0.mlp.down_proj.weight';
  const gatherWith = (tensor: Omit<Tensor, 'data'>) => () => {
    gatherWeights(config, tinyTensors('F32').set(name, { ...tensor, data: new Uint8Array(64) }), 'm');
  };
  assert.throws(gatherWith({ dtype: 'F32', shape: [2, 8] }), /down_proj.weight" expected shape \[4, 4\], got \[2, 8\]/);
  assert.throws(gatherWith({ dtype: 'I32', shape: [4, 4] }), /down_proj.weight" expected F32, got I32/);
  // Whatever number of layers a configuration claims.
  for (const layers of [2, 2 ** 40, 1e300]) assert.throws(() => gatherWeights({ ...config, layers }, tinyTensors('F32'), 'm'), /"m: model.layers.1.input_layernorm.weight" is missing/);
});

test('takes a model whose KV cache alone is quantized, as calibrate writes it', () => {
  const config = withKvCacheScheme(orator, { dtype: 'e4m3fn', granularity: 'tensor' });
  assert.equal(parseConfig(config, 'config.json'), parseConfig(orator, 'config.json'));
});

test('weights may lie in several files, of an index that stays in its folder', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-'));
  const write = (name: string, content: object | Uint8Array): void => writeFileSync(join(folder, name), content instanceof Uint8Array ? content : JSON.stringify(content));
  const entries = [...tinyTensors('F32')];
  entries.at(-1)![1].data.set(new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer));
  const shards = [entries.slice(0, 5), entries.slice(5)];
  for (const [i, shard] of shards.entries()) write(`${i}.safetensors`, serializeSafetensors(new Map(shard)));
  write('config.json', tiny);
  const indexOf = (nameOf: (shard: number) => unknown): object => ({ weight_map: Object.fromEntries(shards.flatMap((shard, i) => shard.map(([name]) => [name, nameOf(i)]))) });
  write('model.safetensors.index.json', indexOf((shard) => `${shard}.safetensors`));
  assertSameBits(readWeights(folder).finalNorm, Float32Array.of(1, 2, 3, 4));
  write('model.safetensors.index.json', indexOf(() => '../0.safetensors'));
  assert.throws(() => readWeights(folder), /index.json: "weight_map" expected names of files beside it, got "..\/0.safetensors"/);
  write('model.safetensors.index.json', {});
  assert.throws(() => readWeights(folder), /index.json: .*" is missing/);
  rmSync(folder, { recursive: true });
});

test('takes the base of RoPE from where newer versions of Transformers keep it', () => {
  const rest = { ...orator, rope_theta: undefined };
  assert.is(parseConfig({ ...rest, rope_parameters: { rope_theta: 5e5, rope_type: 'default' } }, 'config.json').ropeTheta, 5e5);
  assert.is(parseConfig({ ...rest, rope_parameters: null }, 'config.json').ropeTheta, 10000);
});

test('refuses models that it would run wrongly', () => {
  const refusals: [object, RegExp][] = [
    [{ architectures: ['MistralForCausalLM'] }, /only LlamaForCausalLM is run here, got \["MistralForCausalLM"\]/],
    [{ model_type: 'mistral' }, /"model_type": "mistral"/],
    [{ rope_scaling: { type: 'linear', factor: 2 } }, /"rope_scaling"/],
    [{ rope_parameters: { rope_type: 'llama3', factor: 8 } }, /"rope_parameters": \{"rope_type":"llama3"/],
    [{ attention_bias: true }, /"attention_bias": true/],
    [{ hidden_act: 'gelu' }, /"hidden_act": "gelu"/],
    [{ quantization_config: { quant_method: 'fp8' } }, /"quantization_config": \{"quant_method":"fp8"\}/],
    [{ quantization_config: { quant_method: 'compressed-tensors', config_groups: { group_0: {} } } }, /"quantization_config"/],
    [{ hidden_size: undefined }, /"hidden_size" expected a positive number, got undefined/],
    [{ head_dim: 12 }, /"head_dim" expected a multiple of 8, got 12/],
    [{ num_attention_heads: 3 }, /"num_attention_heads" expected a multiple of 2 key\/value heads, got 3/],
  ];
  for (const [change, message] of refusals) assert.throws(() => parseConfig({ ...orator, ...change }, 'config.json'), message);
});
