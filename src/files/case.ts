/** What attend and append case files have in common: metadata, cache tensors and scales in the ecosystem's plain layout. */
import type { CodeArray } from '../backend.js';
import { FormatError } from '../errors.js';
import { formats, resolveFormat, type FloatArray, type FloatDtype, type Format } from '../formats.js';
import type { Granularity } from '../layout.js';
import type { SafetensorsFile } from './safetensors.js';
import { float32, quote, showShape, uint16, uint8, type Tensor } from './tensor.js';

/** One side of a cache as a case file gives it. */
export interface CaseSide {
  readonly format: Format;
  readonly granularity: Granularity;
  /** The one number of granularity `tensor`. */
  readonly scale: number | undefined;
  /** [blocks, block, kvHeads] of granularity `token-head`. */
  readonly scales: Float32Array | undefined;
}

const floatDtypes: { readonly [dtype: string]: FloatDtype } = { F32: 'f32', F16: 'f16', BF16: 'bf16' };
const HEADER = 8;

const shown = (text: string | undefined): string => (text === undefined ? 'none' : quote(text));

/** A case file being read: every look-up that fails is a FormatError. */
export class CaseReader {
  constructor(
    readonly content: SafetensorsFile,
    readonly file: string,
    kind: 'attend/1' | 'append/1',
  ) {
    const found = this.text('fp8_kv_case');
    if (found !== kind) this.fail(`metadata "fp8_kv_case" expected ${kind}, got ${shown(found)}`);
    const layout = this.text('layout') ?? 'NHD';
    if (layout !== 'NHD') this.fail(`metadata "layout" expected NHD, got ${quote(layout)}`);
  }

  fail(reason: string): never {
    throw new FormatError(this.file, HEADER, reason);
  }

  text(key: string): string | undefined {
    return this.content.metadata.get(key);
  }

  /** A number written as JSON would. */
  number(key: string, absent: number): number {
    const text = this.text(key);
    if (text === undefined) return absent;
    if (!/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) this.fail(`metadata "${key}" expected a number, got ${quote(text)}`);
    return Number(text);
  }

  /** A size that the file must state, or that a tensor's shape tells. */
  size(key: string, told: number | undefined): number {
    const size = this.number(key, told ?? NaN);
    if (!Number.isSafeInteger(size) || size < 0) this.fail(`metadata "${key}" expected a non-negative integer, got ${shown(this.text(key))}`);
    return size;
  }

  boolean(key: string, absent: boolean): boolean {
    const text = this.text(key);
    if (text === undefined) return absent;
    if (text !== 'true' && text !== 'false') this.fail(`metadata "${key}" expected true or false, got ${quote(text)}`);
    return text === 'true';
  }

  has(name: string): boolean {
    return this.content.tensors.has(name);
  }

  /** A tensor with this many dimensions. */
  tensor(name: string, rank: number): Tensor {
    const tensor = this.content.tensors.get(name);
    if (tensor === undefined) this.fail(`tensor "${name}" expected to be there, got none`);
    if (tensor.shape.length !== rank) this.fail(`tensor "${name}" expected ${rank} dimensions, got ${showShape(tensor.shape)}`);
    return tensor;
  }

  /** @throws FormatError unless the shape is this one */
  expectShape(name: string, actual: readonly number[], expected: readonly number[]): void {
    if (actual.length !== expected.length || actual.some((size, i) => size !== expected[i])) {
      this.fail(`tensor "${name}" expected shape ${showShape(expected)}, got ${showShape(actual)}`);
    }
  }

  /** The elements, or a FormatError for a dtype that does not fit. */
  typed<T>(name: string, tensor: Tensor, read: (tensor: Tensor, argument: string) => T): T {
    try {
      return read(tensor, name);
    } catch (error) {
      return this.fail((error as Error).message);
    }
  }

  /** Unquantized values and their dtype. */
  floats(name: string, tensor: Tensor): { values: FloatArray; dtype: FloatDtype } {
    const dtype = floatDtypes[tensor.dtype];
    if (dtype === undefined) this.fail(`tensor "${name}" expected F32, F16 or BF16, got ${tensor.dtype}`);
    return { values: dtype === 'f32' ? this.typed<FloatArray>(name, tensor, float32) : this.typed<FloatArray>(name, tensor, uint16), dtype };
  }

  /** The cache format that a tensor's dtype stands for. */
  cacheFormat(name: string, tensor: Tensor): Format {
    for (const format of Object.keys(formats) as Format[]) if (formats[format].safetensors === tensor.dtype) return format;
    const known = Object.values(formats).map(({ safetensors }) => safetensors);
    return this.fail(`tensor "${name}" expected a cache of ${known.join(', ')}, got ${tensor.dtype}`);
  }

  codes(name: string, tensor: Tensor): CodeArray {
    if (tensor.dtype === 'F32') return this.typed<CodeArray>(name, tensor, float32);
    if (tensor.dtype === 'F16') return this.typed<CodeArray>(name, tensor, uint16);
    const codes = this.typed(name, tensor, uint8);
    return tensor.dtype === 'I8' ? new Int8Array(codes.buffer, codes.byteOffset, codes.byteLength) : codes;
  }

  /** The key under which the metadata says something of a side: its own, or the one for both. */
  #keyOf(side: 'k' | 'v', own: string, both: string): string {
    const key = `${side}_${own}`;
    return this.text(key) === undefined ? both : key;
  }

  /** The format that the metadata states for a side, where it states one. */
  statedFormat(side: 'k' | 'v'): Format | undefined {
    const key = this.#keyOf(side, 'dtype', 'kv_cache_dtype');
    const name = this.text(key);
    try {
      // vLLM's `auto` leaves it to the tensors.
      return name === undefined || name === 'auto' ? undefined : resolveFormat(name);
    } catch {
      return this.fail(`metadata "${key}" expected one of ${Object.keys(formats).join(', ')} or vLLM's name of one, got ${shown(name)}`);
    }
  }

  /** The granularity that the metadata states for a side, where it states one. */
  statedGranularity(side: 'k' | 'v', heads: number): Granularity | undefined {
    const key = this.#keyOf(side, 'granularity', 'granularity');
    const stated = this.text(key);
    if (stated === undefined || stated === 'tensor' || stated === 'token-head') return stated;
    // One head's scale per head is one number: the same as per tensor.
    if (stated === 'head' && heads === 1) return 'tensor';
    return this.fail(`metadata "${key}" expected tensor or token-head, got ${quote(stated)}`);
  }

  /** Format, granularity and scales of one side, from its tensors; what the metadata states must agree. */
  side(side: 'k' | 'v', cache: Tensor): CaseSide {
    const format = this.cacheFormat(`${side}_cache`, cache);
    const stated = this.statedFormat(side);
    if (stated !== undefined && stated !== format) this.fail(`metadata states ${stated} for ${side}, tensor "${side}_cache" is ${cache.dtype}`);
    return { format, ...this.scales(side, cache.shape, format) };
  }

  /** Granularity and scales of one side whose cache has this shape; absent scales are those of granularity tensor. */
  scales(side: 'k' | 'v', shape: readonly number[], format: Format): Omit<CaseSide, 'format'> {
    const name = `${side}_scale`;
    const [blocks, block, heads] = shape;
    // f16 and f32 carry no scales, whatever granularity is stated for the whole cache.
    if (!formats[format].quantized && !this.has(name)) return { granularity: 'tensor', scale: undefined, scales: undefined };
    const stated = this.statedGranularity(side, heads);
    const tensor = this.content.tensors.get(name);
    if (tensor === undefined) {
      if (stated === 'token-head') this.fail(`tensor "${name}" expected scales of granularity token-head, got none`);
      return { granularity: 'tensor', scale: undefined, scales: undefined };
    }
    const values = this.typed(name, tensor, float32);
    const single = tensor.shape.length === 1 && tensor.shape[0] === 1;
    if (!single && tensor.shape.length !== 3) {
      this.fail(`tensor "${name}" expected scales per tensor [1] or per token and head [blocks, block, heads], got ${showShape(tensor.shape)}`);
    }
    const granularity = single ? 'tensor' : 'token-head';
    if (stated !== undefined && stated !== granularity) {
      this.fail(`metadata states granularity ${stated} for ${side}, tensor "${name}" has shape ${showShape(tensor.shape)}`);
    }
    if (granularity === 'tensor') return { granularity, scale: values[0], scales: undefined };
    this.expectShape(name, tensor.shape, [blocks, block, heads]);
    return { granularity, scale: undefined, scales: values };
  }
}
