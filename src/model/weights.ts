/** A Hugging Face Llama checkpoint: config.json and model.safetensors, or an index of several, its weights widened exactly to f32. */
import { parseSafetensors } from '../files/safetensors.js';
import { float32, showShape, uint16, type Tensor } from '../files/tensor.js';
import { widen } from '../layouts/half-scales.js';
import { parseConfig, type LlamaConfig } from './config.js';
import { readFile, readJsonObject, type ModelFiles } from './files.js';

/** All row-major, matrices as (out, in). */
export interface LayerWeights {
  readonly attentionNorm: Float32Array;
  readonly query: Float32Array;
  readonly key: Float32Array;
  readonly value: Float32Array;
  readonly output: Float32Array;
  readonly mlpNorm: Float32Array;
  readonly gate: Float32Array;
  readonly up: Float32Array;
  readonly down: Float32Array;
}

export interface LlamaWeights {
  readonly config: LlamaConfig;
  /** (vocab, hidden) */
  readonly embedding: Float32Array;
  readonly layers: readonly LayerWeights[];
  readonly finalNorm: Float32Array;
  /** (vocab, hidden); the embedding itself where the two are tied. */
  readonly head: Float32Array;
}

/** @throws Error naming the file and what in it is missing, malformed or not supported; FormatError for a broken .safetensors */
export function weightsOf(files: ModelFiles): LlamaWeights {
  const config = parseConfig(readJsonObject(files, 'config.json'), files.path('config.json'));
  const [name, index] = ['model.safetensors', 'model.safetensors.index.json'];
  const bytes = files.read(name);
  if (bytes) return gatherWeights(config, parseSafetensors(bytes, files.path(name)).tensors, files.path(name));
  if (files.read(index)) return gatherWeights(config, readShards(files, index), files.path(index));
  throw new Error(`${files.path(name)} is missing`);
}

/** The tensors of a model that lies in several files. */
function readShards(files: ModelFiles, index: string): Map<string, Tensor> {
  const { weight_map: map } = readJsonObject(files, index);
  const tensors = new Map<string, Tensor>();
  for (const name of new Set(Object.values((map ?? {}) as Record<string, unknown>))) {
    if (typeof name !== 'string' || /[\\/]|^\.*$/.test(name)) throw new Error(`${files.path(index)}: "weight_map" expected names of files beside it, got ${JSON.stringify(name)}`);
    for (const [tensorName, tensor] of parseSafetensors(readFile(files, name), files.path(name)).tensors) tensors.set(tensorName, tensor);
  }
  return tensors;
}

/** @throws Error naming the file and the tensor that is missing, of another shape or of an unknown dtype */
export function gatherWeights(config: LlamaConfig, tensors: ReadonlyMap<string, Tensor>, file: string): LlamaWeights {
  const take = (name: string, ...shape: number[]): Float32Array => {
    const argument = `${file}: ${name}`;
    return floatsOf(expectShape(tensors.get(name), shape, argument), argument);
  };

  const { hidden, intermediate, headDim, vocab } = config;
  const queryWidth = config.queryHeads * headDim;
  const kvWidth = config.kvHeads * headDim;
  const readLayer = (index: number): LayerWeights => {
    const layer = `model.layers.${index}`;
    return {
      attentionNorm: take(`${layer}.input_layernorm.weight`, hidden),
      query: take(`${layer}.self_attn.q_proj.weight`, queryWidth, hidden),
      key: take(`${layer}.self_attn.k_proj.weight`, kvWidth, hidden),
      value: take(`${layer}.self_attn.v_proj.weight`, kvWidth, hidden),
      output: take(`${layer}.self_attn.o_proj.weight`, hidden, queryWidth),
      mlpNorm: take(`${layer}.post_attention_layernorm.weight`, hidden),
      gate: take(`${layer}.mlp.gate_proj.weight`, intermediate, hidden),
      up: take(`${layer}.mlp.up_proj.weight`, intermediate, hidden),
      down: take(`${layer}.mlp.down_proj.weight`, hidden, intermediate),
    };
  };
  // Not by an array of that length: the first layer that is missing is named, whatever a configuration claims.
  const layers: LayerWeights[] = [];
  while (layers.length < config.layers) layers.push(readLayer(layers.length));
  // Of two tied tensors a file may hold either.
  const embeddingName = 'model.embed_tokens.weight';
  const headName = 'lm_head.weight';
  const embedding = take(config.tiedEmbeddings && !tensors.has(embeddingName) ? headName : embeddingName, vocab, hidden);
  return {
    config,
    embedding,
    layers,
    finalNorm: take('model.norm.weight', hidden),
    head: config.tiedEmbeddings ? embedding : take(headName, vocab, hidden),
  };
}

function expectShape(tensor: Tensor | undefined, shape: readonly number[], argument: string): Tensor {
  if (tensor === undefined) throw new Error(`"${argument}" is missing`);
  const [expected, got] = [showShape(shape), showShape(tensor.shape)];
  if (got !== expected) throw new Error(`"${argument}" expected shape ${expected}, got ${got}`);
  return tensor;
}

/** The tensor's values as f32: exact for every dtype that is accepted. */
function floatsOf(tensor: Tensor, argument: string): Float32Array {
  if (tensor.dtype === 'BF16') return widen(uint16(tensor, argument), 'bf16');
  if (tensor.dtype === 'F16') return widen(uint16(tensor, argument), 'f16');
  return float32(tensor, argument);
}
