/** ONNX models as bytes: as much of onnx.proto3 as a handful of nodes takes. Its field numbers stand here as numbers. */

const elementTypes = { float32: 1, int64: 7, float16: 10 } as const;
export type ElementType = keyof typeof elementTypes;

/** Base-128, lowest group first. */
const varint = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...varint(Math.floor(value / 128))]);
const integer = (field: number, value: number): Buffer => Buffer.from([...varint(field << 3), ...varint(value)]);
const message = (field: number, ...parts: readonly Uint8Array[]): Buffer => {
  const body = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([...varint((field << 3) | 2), ...varint(body.length)]), body]);
};
const text = (field: number, value: string): Buffer => message(field, Buffer.from(value));

export type Attributes = { readonly [name: string]: number | readonly number[] };

/** AttributeProto: name, i or ints, type. */
const attribute = ([name, value]: [string, number | readonly number[]]): Buffer =>
  typeof value === 'number' ? message(5, text(1, name), integer(3, value), integer(20, 2)) : message(5, text(1, name), ...value.map((one) => integer(8, one)), integer(20, 7));

/** NodeProto. */
export const node = (operator: string, inputs: readonly string[], output: string, attributes: Attributes = {}): Buffer =>
  message(1, ...inputs.map((input) => text(1, input)), text(2, output), text(4, operator), ...Object.entries(attributes).map(attribute));

/** TensorProto. */
export const constant = (name: string, type: ElementType, dims: readonly number[], data: ArrayBufferView): Buffer =>
  message(5, ...dims.map((dim) => integer(1, dim)), integer(2, elementTypes[type]), text(8, name), message(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)));

export interface Value {
  readonly name: string;
  readonly type: ElementType;
  /** Names of dims that each call has its own of. */
  readonly dims: readonly (number | string)[];
}

/** ValueInfoProto. */
function valueInfo(field: number, { name, type, dims }: Value): Buffer {
  const shape = message(2, ...dims.map((dim) => message(1, typeof dim === 'number' ? integer(1, dim) : text(2, dim))));
  return message(field, text(1, name), message(2, message(1, integer(1, elementTypes[type]), shape)));
}

/** ModelProto, of operator set 13. */
export function model(inputs: readonly Value[], outputs: readonly Value[], parts: readonly Buffer[]): Uint8Array {
  const graph = message(7, ...parts, text(2, 'graph'), ...inputs.map((value) => valueInfo(11, value)), ...outputs.map((value) => valueInfo(12, value)));
  return new Uint8Array(Buffer.concat([integer(1, 8), graph, message(8, text(1, ''), integer(2, 13))]));
}
