/** What of Transformers.js' tensors is used here, and their values as kernels take them. */
import type { FloatArray } from '../formats.js';
import { roundHalves } from '../layouts/half-scales.js';

/** As much of a `Tensor` of Transformers.js as is needed. */
export interface TransformersTensor {
  /** Of keys and values: [batch, kvHeads, tokens, headDim]. */
  readonly dims: number[];
  /** Of keys and values: float32 or float16. */
  readonly type: string;
  /** Not there as long as the tensor lies on a GPU. */
  readonly data: unknown;
  /** `cpu`, or `gpu-buffer`. */
  readonly location: string;
  /** onnxruntime's, whose `getData` brings values from a GPU. */
  readonly ort_tensor: any;
  /** Lets go of its values. */
  dispose(): void;
}

/** `Tensor` of Transformers.js, as far as its constructor is needed. */
export type TransformersTensorClass<T> = new (type: 'float32' | 'float16', data: Float32Array | Uint16Array, dims: number[]) => T;

/** Keys or values that are quantized. */
export interface Rows {
  readonly type: 'float32' | 'float16';
  /** [batch, kvHeads, tokens, headDim] */
  readonly dims: readonly [batch: number, kvHeads: number, tokens: number, headDim: number];
}

/** @throws TypeError or RangeError naming the entry unless it is one of keys or values: [batch, kvHeads, tokens, headDim] of floats */
export function checkRows({ type, dims }: TransformersTensor, name: string): Rows {
  if (type !== 'float32' && type !== 'float16') throw new TypeError(`"${name}" expected a tensor of float32 or float16, got ${type}`);
  if (dims.length !== 4) throw new RangeError(`"${name}" expected dims [batch, kvHeads, tokens, headDim], got [${dims.join(', ')}]: "skipLayers" leaves a layer as it is`);
  return { type, dims: [dims[0], dims[1], dims[2], dims[3]] };
}

/** A tensor's values, f16 as bits; those on a GPU are read back. Where the runtime has Float16Array, f16 come in such. */
export async function valuesOf(tensor: TransformersTensor): Promise<FloatArray> {
  const values = (tensor.location === 'gpu-buffer' ? await tensor.ort_tensor.getData() : tensor.data) as FloatArray;
  return values instanceof Float32Array ? values : new Uint16Array(values.buffer, values.byteOffset, values.length);
}

/** Values as a tensor of this type has them. */
export const asType = (values: Float32Array, type: Rows['type']): FloatArray => (type === 'float32' ? values : roundHalves(values));

export const bytesOfTensor = ({ type, dims }: TransformersTensor): number => dims.reduce((product, dim) => product * dim, type === 'float16' ? 2 : 4);
