/** What case files of attend, append and codes have in common: metadata, cache tensors and scales in the ecosystem's plain layout. */
import type { CodeArray } from '../backend.js';
import { FormatError } from '../errors.js';
import { formats, resolveFormat, type FloatArray, type FloatDtype, type Format } from '../formats.js';
import type { Granularity, SideOptions } from '../layout.js';
import { granularities, isGiven } from '../policies.js';
import { widenHalves } from '../layouts/half-scales.js';
import type { GivenScale } from '../scale.js';
import type { SafetensorsFile } from './safetensors.js';
import { float32, quote, showShape, uint16, uint8, valueDtypes, type Tensor } from './tensor.js';

/** One side of a cache as a case file gives it. */
export interface CaseSide extends Required<Pick<SideOptions, 'granularity'>>, Pick<SideOptions, 'groupSize'> {
  readonly dtype: Format;
  /** Given scales: [1], [kvHeads] or [kvHeads, dim]. */
  readonly given: GivenScale | undefined;
  /** Computed ones: [blocks, block, kvHeads], or [blocks, block, kvHeads, groups]. */
  readonly computed: Float32Array | undefined;
}

/** What shape scales of a granularity have, where the cache has the shape [blocks, block, heads, dim]. */
export function scaleShape(granularity: Granularity, groupSize: number | undefined, [blocks, block, heads, dim]: readonly number[]): readonly number[] {
  if (granularity === 'tensor') return [1];
  if (granularity === 'head') return [heads];
  if (granularity === 'channel') return [heads, dim];
  const rows = [blocks, block, heads];
  return granularity === 'group' ? [...rows, dim / groupSize!] : rows;
}

/** Whether a tensor may be a cache of a format: FP8 also as plain bytes. */
export function holdsFormat({ dtype }: Tensor, format: Format): boolean {
  const { safetensors } = formats[format];
  return dtype === safetensors || (dtype === 'U8' && (safetensors === 'F8_E4M3' || safetensors === 'F8_E5M2'));
}

/** Scales of f32, or of f16 as the numbers they are. */
export function scaleValues(tensor: Tensor, argument: string): Float32Array {
  if (tensor.dtype === 'F16') return widenHalves(uint16(tensor));
  if (tensor.dtype !== 'F32') throw new TypeError(`"${argument}" expected F32 or F16, got ${tensor.dtype}`);
  return float32(tensor);
}

const HEADER = 8;

const shown = (text: string | undefined): string => (text === undefined ? 'none' : quote(text));

/** A case file being read: every look-up that fails is a FormatError. */
export class CaseReader {
  constructor(
    readonly content: SafetensorsFile,
    readonly file: string,
    kind: 'attend/1' | 'append/1' | 'codes/1',
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

  /** A tensor with this many dimensions, or with any. */
  tensor(name: string, rank?: number): Tensor {
    const tensor = this.content.tensors.get(name);
    if (tensor === undefined) this.fail(`tensor "${name}" expected to be there, got none`);
    if (rank !== undefined && tensor.shape.length !== rank) this.fail(`tensor "${name}" expected ${rank} dimensions, got ${showShape(tensor.shape)}`);
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
    const dtype = valueDtypes[tensor.dtype];
    if (dtype === undefined) this.fail(`tensor "${name}" expected F32, F16 or BF16, got ${tensor.dtype}`);
    return { values: dtype === 'f32' ? this.typed<FloatArray>(name, tensor, float32) : this.typed<FloatArray>(name, tensor, uint16), dtype };
  }

  /** The cache format that a tensor's dtype stands for; of U8, which vLLM's FP8 caches are, the one that is stated. */
  cacheFormat(name: string, tensor: Tensor, stated: Format | undefined): Format {
    if (stated !== undefined && holdsFormat(tensor, stated)) return stated;
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
  statedGranularity(side: 'k' | 'v'): Granularity | undefined {
    const key = this.#keyOf(side, 'granularity', 'granularity');
    const stated = this.text(key);
    if (stated === undefined || Object.hasOwn(granularities, stated)) return stated as Granularity | undefined;
    return this.fail(`metadata "${key}" expected one of ${Object.keys(granularities).join(', ')}, got ${quote(stated)}`);
  }

  /** The group size that the metadata states for a side. */
  #statedGroupSize(side: 'k' | 'v'): number | undefined {
    const key = this.#keyOf(side, 'group_size', 'group_size');
    return this.text(key) === undefined ? undefined : this.size(key, undefined);
  }

  /** Format, granularity and scales of one side, from its tensors; what the metadata states must agree. */
  side(side: 'k' | 'v', cache: Tensor): CaseSide {
    const stated = this.statedFormat(side);
    const dtype = this.cacheFormat(`${side}_cache`, cache, stated);
    if (stated !== undefined && stated !== dtype) this.fail(`metadata states ${stated} for ${side}, tensor "${side}_cache" is ${cache.dtype}`);
    return { dtype, ...this.scales(side, cache.shape, dtype) };
  }

  /** The granularity that scales of this shape have. One number may be each head's, where there is one head. */
  #granularityOf(name: string, tensor: Tensor, stated: Granularity | undefined): Granularity {
    const { shape } = tensor;
    if (shape.length === 1) return shape[0] === 1 && stated !== 'head' ? 'tensor' : 'head';
    if (shape.length === 2) return 'channel';
    if (shape.length === 3) return 'token-head';
    if (shape.length === 4) return 'group';
    return this.fail(`tensor "${name}" expected scales [1], [heads], [heads, dim], [blocks, block, heads] or [blocks, block, heads, groups], got ${showShape(shape)}`);
  }

  /** Of which size groups are, by the metadata or by how many scales a head has. */
  #groupSizeOf(side: 'k' | 'v', dim: number, groups: number | undefined): number {
    const size = this.#statedGroupSize(side) ?? (groups ? dim / groups : undefined);
    return size ?? this.fail(`metadata "group_size" expected a number, as granularity group is stated for ${side}, got none`);
  }

  /** Granularity and scales of one side whose cache has this shape; absent scales are those of granularity tensor. */
  scales(side: 'k' | 'v', shape: readonly number[], dtype: Format): Omit<CaseSide, 'dtype'> {
    const name = `${side}_scale`;
    // f16 and f32 carry no scales, whatever granularity is stated for the whole cache.
    if (!formats[dtype].quantized && !this.has(name)) return { granularity: 'tensor', given: undefined, computed: undefined };
    const stated = this.statedGranularity(side);
    const found = this.content.tensors.get(name);
    // torch's scalars have no dimension.
    const tensor = found?.shape.length === 0 ? { ...found, shape: [1] } : found;
    if (tensor === undefined) {
      if (stated !== undefined && stated !== 'tensor') this.fail(`tensor "${name}" expected scales of granularity ${stated}, got none`);
      return { granularity: 'tensor', given: undefined, computed: undefined };
    }
    const values = this.typed(name, tensor, scaleValues);
    const granularity = this.#granularityOf(name, tensor, stated);
    if (stated !== undefined && stated !== granularity) {
      this.fail(`metadata states granularity ${stated} for ${side}, tensor "${name}" has shape ${showShape(tensor.shape)}`);
    }
    const groupSize = granularity === 'group' ? this.#groupSizeOf(side, shape[3], tensor.shape[3]) : undefined;
    this.expectShape(name, tensor.shape, scaleShape(granularity, groupSize, shape));
    return isGiven(granularity) ? { granularity, groupSize, given: values, computed: undefined } : { granularity, groupSize, given: undefined, computed: values };
  }

  /** A side whose scales are computed by the call that the case is of; or as {@link scales}. */
  startless(side: 'k' | 'v', shape: readonly number[]): CaseSide {
    const dtype = this.statedFormat(side) ?? this.fail(`metadata "kv_cache_dtype" expected a cache dtype, got none`);
    if (!formats[dtype].quantized) return { dtype, ...this.scales(side, shape, dtype) };
    const granularity = this.statedGranularity(side) ?? (this.has(`${side}_scale`) ? undefined : 'token-head');
    if (granularity !== undefined && !isGiven(granularity) && !this.has(`${side}_scale`)) {
      const groupSize = granularity === 'group' ? this.#groupSizeOf(side, shape[3], undefined) : undefined;
      return { dtype, granularity, groupSize, given: undefined, computed: undefined };
    }
    const scales = this.scales(side, shape, dtype);
    if (scales.computed) this.fail(`tensor "${side}_scale" expected "${side}_cache" beside it, got none`);
    return { dtype, ...scales };
  }
}
