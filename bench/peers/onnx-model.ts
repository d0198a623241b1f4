/** An ONNX model of one GroupQueryAttention node, as bytes: the few protobuf messages that takes (onnx.proto3 has the field numbers). */

/** Element types of TensorProto.DataType. */
const elementTypes = { float32: 1, int8: 3, int32: 6, float16: 10 } as const;
export type ElementType = keyof typeof elementTypes;

export interface GroupQueryAttentionShape {
  readonly queryHeads: number;
  readonly kvHeads: number;
  /** Element type of query, key, value and output. */
  readonly values: ElementType;
  /** Element type of the cache; int8 brings one scale for all keys and one for all values. */
  readonly cache: ElementType;
}

type Bytes = readonly number[];

/** Base-128, lowest group first. */
function varint(value: number): Bytes {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))];
}

const integer = (field: number, value: number): Bytes => [...varint(field << 3), ...varint(value)];
const message = (field: number, ...parts: readonly Bytes[]): Bytes => {
  const body = parts.flat();
  return [...varint((field << 3) | 2), ...varint(body.length), ...body];
};
const text = (field: number, value: string): Bytes => message(field, [...Buffer.from(value)]);

const ATTRIBUTE_INT = 2;
const ATTRIBUTE_STRING = 3;

/** AttributeProto: name, i or s, type. */
function attribute(name: string, value: number | string): Bytes {
  const [content, type] = typeof value === 'number' ? [integer(3, value), ATTRIBUTE_INT] : [text(4, value), ATTRIBUTE_STRING];
  return message(5, text(1, name), content, integer(20, type));
}

/** ValueInfoProto without sizes: the runtime takes them from what it is given. */
function valueInfo(field: number, name: string, type: ElementType, rank: number): Bytes {
  const shape = message(2, ...Array.from({ length: rank }, (_, i) => message(1, text(2, `${name}_${i}`))));
  return message(field, text(1, name), message(2, message(1, integer(1, elementTypes[type]), shape)));
}

/** Inputs 7 to 11 of the operator (rotary caches, positions, bias, sinks) are not used: an empty name stands for each. */
const UNUSED = ['', '', '', '', ''];

/** The model's bytes. Inputs and outputs have the operator's own names. */
export function groupQueryAttention({ queryHeads, kvHeads, values, cache }: GroupQueryAttentionShape): Uint8Array {
  const quantized = cache === 'int8';
  const inputs: [string, ElementType, number][] = [
    ['query', values, 3], ['key', values, 3], ['value', values, 3], ['past_key', cache, 4], ['past_value', cache, 4],
    ['seqlens_k', 'int32', 1], ['total_sequence_length', 'int32', 1],
  ];
  const scales: [string, ElementType, number][] = quantized ? [['k_scale', 'float32', 1], ['v_scale', 'float32', 1]] : [];
  const outputs: [string, ElementType, number][] = [['output', values, 3], ['present_key', cache, 4], ['present_value', cache, 4]];
  const names = [...inputs.map(([name]) => name), ...(quantized ? UNUSED : []), ...scales.map(([name]) => name)];
  const attributes: [string, number | string][] = [['num_heads', queryHeads], ['kv_num_heads', kvHeads]];
  if (quantized) attributes.push(['k_quant_type', 'PER_TENSOR'], ['v_quant_type', 'PER_TENSOR'], ['kv_cache_bit_width', 8]);
  const node = message(
    1,
    ...names.map((name) => text(1, name)),
    ...outputs.map(([name]) => text(2, name)),
    text(4, 'GroupQueryAttention'),
    ...attributes.map(([name, value]) => attribute(name, value)),
    text(7, 'com.microsoft'),
  );
  const graph = message(
    7,
    node,
    text(2, 'attention'),
    ...[...inputs, ...scales].map((input) => valueInfo(11, ...input)),
    ...outputs.map((output) => valueInfo(12, ...output)),
  );
  const opset = (domain: string, version: number): Bytes => message(8, text(1, domain), integer(2, version));
  return Uint8Array.from([integer(1, 9), graph, opset('', 21), opset('com.microsoft', 1)].flat());
}
