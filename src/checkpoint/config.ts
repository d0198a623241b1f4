/** What config.json and its like say about a model's attention. */
import type { FloatDtype } from '../formats.js';
import { isObject, type JsonObject, type JsonValue } from './json.js';

/** More layers than this no model has, and a file that says so would have us make them. */
export const MAX_LAYERS = 4096;

/** What a configuration says; what it does not say is undefined. */
export interface ModelShape {
  readonly layers?: number;
  readonly queryHeads?: number;
  readonly kvHeads?: number;
  readonly headDim?: number;
  readonly modelDtype?: FloatDtype;
  /** Whether a layer has a KV cache: those of linear attention have not. */
  readonly hasCache: (layer: number) => boolean;
}

/** Where the language model's own settings are, in models that can do more. */
const nested = ['text_config', 'llm_config', 'language_config'];

/** The names of Hugging Face (first), GPT-2, TensorRT-LLM and Mistral's params.json. */
const names = {
  layers: ['num_hidden_layers', 'n_layer', 'num_layers', 'n_layers'],
  queryHeads: ['num_attention_heads', 'n_head', 'n_heads'],
  kvHeads: ['num_key_value_heads', 'num_kv_heads', 'n_kv_heads'],
  headDim: ['head_dim', 'head_size'],
  hidden: ['hidden_size', 'n_embd', 'dim'],
} as const;

const LIMITS = { layers: MAX_LAYERS, queryHeads: 65536, kvHeads: 65536, headDim: 65536, hidden: 2 ** 24 } as const;

const dtypes: { readonly [name: string]: FloatDtype } = { float32: 'f32', float16: 'f16', bfloat16: 'bf16' };

/** Of layers without keys and values, in Hugging Face's `layer_types` and NemotronH's `layers_block_type`. */
const cacheless = new Set<JsonValue>(['linear_attention', 'mamba', 'mamba2', 'recurrent', 'conv', 'moe', 'mlp']);

/** An object in which to look for a setting. */
export interface Scope {
  readonly settings: JsonObject;
  /** What stands before a setting's name in messages: "" or "text_config." */
  readonly path: string;
}

/** The objects in which to look for a setting, the nearest first. */
export function scopesOf(config: JsonObject): Scope[] {
  const inner = nested.flatMap((name): Scope[] => {
    const settings = config.get(name);
    return isObject(settings) ? [{ settings, path: `${name}.` }] : [];
  });
  return [...inner, { settings: config, path: '' }];
}

/**
 * @param file what to call the file in errors
 * @throws RangeError for a number that is none, or beyond what models have
 */
export function readShape(config: JsonObject, file: string): ModelShape {
  const scopes = scopesOf(config).map(({ settings }) => settings);
  const take = (what: keyof typeof names): number | undefined => {
    for (const scope of scopes) for (const name of names[what]) {
      const value = scope.get(name);
      // Some models have a list, of one number per layer.
      if (value === undefined || value === null || Array.isArray(value)) continue;
      if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1 || value > LIMITS[what]) {
        throw new RangeError(`"${file}: ${name}" expected an integer from 1 to ${LIMITS[what]}, got ${show(value)}`);
      }
      return value;
    }
    return undefined;
  };
  const queryHeads = take('queryHeads');
  const hidden = take('hidden');
  const derived = queryHeads && hidden && hidden % queryHeads === 0 ? hidden / queryHeads : undefined;
  return {
    layers: take('layers'),
    queryHeads,
    kvHeads: take('kvHeads') ?? (hasKey(scopes, names.kvHeads) ? undefined : queryHeads),
    headDim: take('headDim') ?? derived,
    modelDtype: dtypeOf(scopes),
    hasCache: cachesOf(scopes),
  };
}

const hasKey = (scopes: readonly JsonObject[], keys: readonly string[]): boolean => scopes.some((scope) => keys.some((key) => scope.get(key) != null));

function dtypeOf(scopes: readonly JsonObject[]): FloatDtype | undefined {
  for (const scope of scopes) for (const name of ['torch_dtype', 'dtype']) {
    const value = scope.get(name);
    if (typeof value === 'string' && Object.hasOwn(dtypes, value)) return dtypes[value];
  }
  return undefined;
}

function cachesOf(scopes: readonly JsonObject[]): (layer: number) => boolean {
  const valuesOf = (...names: string[]): (JsonValue | undefined)[] => scopes.flatMap((scope) => names.map((name) => scope.get(name)));
  const types = valuesOf('layer_types', 'layers_block_type').find((value): value is readonly JsonValue[] => Array.isArray(value));
  // NemotronH's of old, a letter for each layer: M of Mamba, E of experts, - of an MLP, * of attention.
  const pattern = valuesOf('hybrid_override_pattern').find((value) => typeof value === 'string');
  return (layer) => (types ? !cacheless.has(types[layer]) : pattern === undefined || !'ME-'.includes(pattern[layer] ?? '*'));
}

/** A value for messages, cut short where a hostile file makes it long. */
export function show(value: JsonValue | undefined): string {
  if (isObject(value)) return `{${[...value.keys()].slice(0, 8).join(', ').slice(0, 80)}}`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 80)) : String(value as number);
}
