/**
 * A language model of no sense, whose keys and values are what they are in real ones: tensors that each call takes and gives back
 * with the new tokens behind. What it says depends on all of them.
 */
import { random } from '../random.js';
import { constant, model, node, type ElementType, type Value } from './onnx.js';

export interface DecoderShape {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocabulary: number;
  /** Of keys and values. */
  readonly type: Exclude<ElementType, 'int64'>;
}

/** Of numbers below 2 in magnitude, which f16 has, and FP8 has not. */
function halves(values: Float32Array): Uint16Array {
  return Uint16Array.from(values, (x) => {
    const integer = Math.round(Math.abs(x) * 1024);
    const exponent = integer === 0 ? 0 : Math.floor(Math.log2(integer));
    return (x < 0 ? 0x8000 : 0) | (integer === 0 ? 0 : ((exponent + 5) << 10) + ((integer << (10 - exponent)) & 0x3ff));
  });
}

/** [vocabulary, kvHeads · headDim]: a token's keys, or values, of a layer; f16 has all of them, and none is −0. */
export function tableOf({ kvHeads, headDim, vocabulary }: DecoderShape, seed: number): Float32Array {
  const { normal } = random(seed);
  return Float32Array.from({ length: vocabulary * kvHeads * headDim }, () => Math.round(Math.max(-1.9, Math.min(1.9, normal() / 2)) * 1024) / 1024 + 0);
}

/** Each layer's keys and values come from a table of its own. */
export const seedOf = (layer: number, side: 'key' | 'value'): number => 2 * layer + (side === 'value' ? 1 : 0) + 1;

export function decoder(shape: DecoderShape): Uint8Array {
  const { layers, kvHeads, headDim, vocabulary, type } = shape;
  const width = kvHeads * headDim;
  const sides = Array.from({ length: layers }, (_, layer) => (['key', 'value'] as const).map((side) => ({ name: `${layer}.${side}`, seed: seedOf(layer, side) }))).flat();
  const states = (name: string, tokens: string): Value => ({ name, type, dims: ['batch_size', kvHeads, tokens, headDim] });
  const floats = (values: Float32Array): ArrayBufferView => (type === 'float16' ? halves(values) : values);
  const parts = sides.flatMap(({ name, seed }) => [
    constant(`table.${name}`, type, [vocabulary, width], floats(tableOf(shape, seed))),
    node('Gather', [`table.${name}`, 'input_ids'], `rows.${name}`),
    node('Reshape', [`rows.${name}`, 'heads'], `tokens.${name}`),
    node('Transpose', [`tokens.${name}`], `new.${name}`, { perm: [0, 2, 1, 3] }),
    node('Concat', [`past_key_values.${name}`, `new.${name}`], `present.${name}`, { axis: 2 }),
    node('Cast', [`present.${name}`], `wide.${name}`, { to: 1 }),
    node('ReduceMean', [`wide.${name}`], `mean.${name}`, { axes: [2], keepdims: 1 }),
    node('Reshape', [`mean.${name}`, 'row'], `flat.${name}`),
    constant(`out.${name}`, 'float32', [width, vocabulary], tableOf({ ...shape, kvHeads: 1, headDim: width }, seed + 100)),
    node('MatMul', [`flat.${name}`, `out.${name}`], `logits.${name}`),
  ]);
  const sums = sides.slice(1).map(({ name }, i) => node('Add', [i === 0 ? `logits.${sides[0].name}` : `sum.${i}`, `logits.${name}`], i === sides.length - 2 ? 'logits' : `sum.${i + 1}`));
  return model(
    [{ name: 'input_ids', type: 'int64', dims: ['batch_size', 'sequence_length'] }, ...sides.map(({ name }) => states(`past_key_values.${name}`, 'past_sequence_length'))],
    [{ name: 'logits', type: 'float32', dims: ['batch_size', 1, vocabulary] }, ...sides.map(({ name }) => states(`present.${name}`, 'total_sequence_length'))],
    [
      constant('heads', 'int64', [4], BigInt64Array.of(0n, 0n, BigInt(kvHeads), BigInt(headDim))),
      constant('row', 'int64', [3], BigInt64Array.of(0n, 1n, BigInt(width))),
      ...parts,
      ...sums,
    ],
  );
}
