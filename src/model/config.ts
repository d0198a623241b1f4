/** A checkpoint's config.json: what of it the runner needs, and a refusal of what it does not do. */

export interface LlamaConfig {
  readonly hidden: number;
  /** Width of the MLP. */
  readonly intermediate: number;
  readonly layers: number;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocab: number;
  /** Most tokens in a sequence. */
  readonly context: number;
  readonly normEpsilon: number;
  readonly ropeTheta: number;
  readonly tiedEmbeddings: boolean;
}

type Json = Record<string, unknown>;

/** @throws Error naming the field that is missing, malformed or asks for something the runner does not do */
export function parseConfig(json: Json, file: string): LlamaConfig {
  refuseUnsupported(json, file);
  const number = (name: string, fallback?: number): number => {
    const value = json[name] ?? fallback;
    if (typeof value !== 'number' || !(value > 0)) throw new Error(`${file}: "${name}" expected a positive number, got ${JSON.stringify(value)}`);
    return value;
  };
  const multipleOf = (step: number, name: string, fallback?: number): number => {
    const value = number(name, fallback);
    if (value % step !== 0) throw new Error(`${file}: "${name}" expected a multiple of ${step}, got ${value}`);
    return value;
  };
  const hidden = multipleOf(4, 'hidden_size');
  const queryHeads = multipleOf(1, 'num_attention_heads');
  const config = {
    hidden,
    intermediate: multipleOf(4, 'intermediate_size'),
    layers: multipleOf(1, 'num_hidden_layers'),
    queryHeads,
    kvHeads: multipleOf(1, 'num_key_value_heads', queryHeads),
    headDim: multipleOf(8, 'head_dim', hidden / queryHeads),
    vocab: multipleOf(1, 'vocab_size'),
    context: multipleOf(1, 'max_position_embeddings', 2048),
    normEpsilon: number('rms_norm_eps', 1e-6),
    ropeTheta: number('rope_theta', ropeOf(json).rope_theta as number | undefined ?? 10000),
    tiedEmbeddings: json.tie_word_embeddings === true,
  };
  if (config.queryHeads % config.kvHeads !== 0) {
    throw new Error(`${file}: "num_attention_heads" expected a multiple of ${config.kvHeads} key/value heads, got ${config.queryHeads}`);
  }
  return config;
}

/** Fields that change the computation, with the values under which it is the one done here. */
const supported: { readonly [field: string]: readonly unknown[] } = {
  model_type: ['llama'],
  rope_scaling: [undefined, null],
  attention_bias: [undefined, false],
  mlp_bias: [undefined, false],
  hidden_act: [undefined, 'silu'],
};

/** Where Transformers from version 5 on keeps what was rope_theta and rope_scaling. */
const ropeOf = ({ rope_parameters }: Json): Json => (rope_parameters ?? {}) as Json;

/** Of a model whose KV cache alone is quantized, the weights are as they were. */
function keepsWeights(quantization: unknown): boolean {
  if (quantization === undefined || quantization === null) return true;
  const { quant_method: method, config_groups: groups } = quantization as Json;
  return method === 'compressed-tensors' && typeof groups === 'object' && groups !== null && Object.keys(groups).length === 0;
}

function refuseUnsupported(json: Json, file: string): void {
  const architectures = json.architectures ?? ['LlamaForCausalLM'];
  if (!Array.isArray(architectures) || !architectures.includes('LlamaForCausalLM')) {
    throw new Error(`${file}: only LlamaForCausalLM is run here, got ${JSON.stringify(architectures)}`);
  }
  const refuse = (field: string): never => {
    throw new Error(`${file}: models are not run here with "${field}": ${JSON.stringify(json[field])}`);
  };
  for (const [field, values] of Object.entries(supported)) if (!values.includes(json[field])) refuse(field);
  if ((ropeOf(json).rope_type ?? 'default') !== 'default') refuse('rope_parameters');
  if (!keepsWeights(json.quantization_config)) refuse('quantization_config');
}
