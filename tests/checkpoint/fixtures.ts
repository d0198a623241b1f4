/** Checkpoints made in memory. */
import * as assert from 'uvu/assert';
import { onWarning, readScales, type CheckpointPlace, type CheckpointScales } from '../../src/index.js';
import { serializeSafetensors } from '../../src/files/safetensors.js';
import type { SafetensorsDtype, Tensor } from '../../src/files/tensor.js';

export const f32 = (shape: number[], ...values: number[]): Tensor => of('F32', shape, Float32Array.from(values));

export function of(dtype: SafetensorsDtype, shape: number[], values: ArrayBufferView): Tensor {
  return { dtype, shape, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
}

export const json = (value: unknown): Uint8Array => new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value));

export const tensorFile = (tensors: { readonly [name: string]: Tensor }, metadata: { readonly [name: string]: string } = {}): Uint8Array =>
  serializeSafetensors(new Map(Object.entries(tensors)), new Map(Object.entries(metadata)));

/** Two layers, 4 query heads, 2 KV heads, dims of 8. */
export const model = { num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 8, torch_dtype: 'bfloat16' };

export const fp8Scheme = { quantization_config: { quant_method: 'compressed-tensors', kv_cache_scheme: { num_bits: 8, type: 'float', strategy: 'tensor', dynamic: false, symmetric: true } } };

/** A folder of config.json and model.safetensors. */
export const checkpoint = (tensors: { readonly [name: string]: Tensor }, config: object = { ...model, ...fp8Scheme }) => ({
  'config.json': json(config),
  'model.safetensors': tensorFile({ 'model.embed_tokens.weight': f32([2], 7, 8), ...tensors }),
});

export interface Told {
  readonly scales: CheckpointScales;
  readonly warnings: readonly string[];
}

/** What is read, and what is said on the way. */
export async function readTold(place: CheckpointPlace): Promise<Told> {
  const warnings: string[] = [];
  const end = onWarning((message) => warnings.push(message));
  try {
    const scales = await readScales(place);
    if (scales.dtype === 'auto') throw new Error('expected scales, the checkpoint was read as unquantized');
    return { scales, warnings };
  } finally {
    end();
  }
}

/** [k, v] of each layer. */
export const numbers = ({ layers }: CheckpointScales): number[][][] => layers.map(({ scale }) => [[...scale.k], [...scale.v]]);

export async function assertRefused(place: CheckpointPlace, reason: RegExp, type: Function = Error): Promise<void> {
  const end = onWarning(() => {});
  try {
    await readScales(place);
  } catch (error) {
    assert.ok(error instanceof type, `${(error as Error).name}: ${(error as Error).message}`);
    assert.match((error as Error).message, reason);
    assert.ok((error as Error).message.length < 1000);
    return;
  } finally {
    end();
  }
  throw new Error(`expected to be refused: ${reason.source}`);
}
