/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The cache of Transformers.js in 8 bits between calls of `generate`. Nothing of Transformers.js is imported: its classes are the
 * user's, whichever copy and version of it that is.
 */
import type { Layer } from '../cache/config.js';
import type { SkipLayers } from '../cache/skip.js';
import { sideOf } from '../append.js';
import { describe, resolveCacheDtype } from '../formats.js';
import { checkBackend, checkOptions, type OptionNames } from '../options.js';
import { wasmBackend } from '../wasm/open.js';
import type { WasmBackend } from '../wasm/backend.js';
import { resolveStore, RestingLayer, type Pair, type StoreOptions } from './layer.js';
import { bytesOfTensor, checkRows, valuesOf, type Rows, type TransformersTensor, type TransformersTensorClass } from './tensors.js';

export type { StoreOptions } from './layer.js';
export type { SkipLayers } from '../cache/skip.js';
export type { TransformersTensor, TransformersTensorClass } from './tensors.js';

/** As much of a `DynamicCache` of Transformers.js as is needed. Its entries are properties of its own. */
interface Dynamic {
  get_seq_length(): number;
  update(entries: Record<string, any>): void;
  dispose(): Promise<void>;
}

/** The classes of Transformers.js that the cache is made of. */
export interface TransformersClasses<C, T> {
  /** What is extended. */
  readonly DynamicCache: new () => C;
  /** What keys and values are given back as. */
  readonly Tensor: TransformersTensorClass<T>;
}

export interface QuantizedDynamicCacheOptions extends StoreOptions {
  /** Layers that stay as they are: their numbers, or a function that says of a number whether it is one of them. */
  readonly skipLayers?: SkipLayers;
  /** Where the codes are kept. It stays the caller's. Default: one of the cache's own, which `dispose` gives back. */
  readonly backend?: WasmBackend;
}

const optionNames: OptionNames<QuantizedDynamicCacheOptions> = {
  dtype: true, modelDtype: true, granularity: true, groupSize: true, recipe: true, scalePrecision: true, scale: true, skipLayers: true, backend: true,
};

/** Bytes that a cache holds. */
export interface CacheMemory {
  /** Codes and scales. */
  readonly quantized: number;
  /** Tensors: what `generate` has left or has been given, and entries that are never quantized. */
  readonly tensors: number;
}

/** What a quantized cache has beside what every `DynamicCache` has. */
export interface Quantizing {
  /**
   * Quantizes the keys and values that `generate` has left, and lets go of their tensors: to be called between two calls of it,
   * and not during one. Tensors on a GPU are read back for that. A token is quantized once: it keeps its codes as long as the
   * model gives it back as it got it; where a model changes its past, all of the layer is quantized anew.
   * @throws TypeError or RangeError naming the entry or the option that does not fit: nothing was quantized then
   */
  quantize(): Promise<void>;
  /** What the cache holds now. */
  readonly memory: CacheMemory;
}

/** A layer's keys or values; those of an encoder, which never grow, are not among them. */
const entryName = /^(past_key_values\.(\d+)\.(?:decoder\.)?)(key|value)$/;

/** Keys and values of a layer, where they were found. */
interface Found extends Pair<TransformersTensor> {
  readonly prefix: string;
}

function skips(skipLayers: SkipLayers | undefined, layer: number): boolean {
  return typeof skipLayers === 'function' ? skipLayers(layer) : (skipLayers?.includes(layer) ?? false);
}

/**
 * Makes the class of quantized caches out of Transformers.js' own.
 *
 * ```ts
 * const QuantizedDynamicCache = quantizedDynamicCache({ DynamicCache, Tensor });
 * const cache = new QuantizedDynamicCache({ dtype: 'fp8_e4m3' });
 * await model.generate({ ...inputs, past_key_values: cache });
 * await cache.quantize(); // until the next call of generate, which finds floats
 * ```
 *
 * An entry that is at rest is dequantized when it is read, with its layer, and stays so until the next `quantize()`: the graph of
 * a model computes with floats, so that during `generate` the cache takes what it takes without this class, and the codes beside.
 * @throws TypeError where a class is missing
 */
export function quantizedDynamicCache<C extends Dynamic, T extends TransformersTensor>(classes: TransformersClasses<C, T>): new (options?: QuantizedDynamicCacheOptions) => C & Quantizing {
  for (const name of ['DynamicCache', 'Tensor'] as const) {
    if (typeof classes?.[name] !== 'function') throw new TypeError(`"${name}" expected the class of Transformers.js, got ${describe(classes?.[name])}`);
  }
  const { Tensor } = classes;

  // All that is its own is private: Transformers.js takes every property for an entry.
  class QuantizedDynamicCache extends (classes.DynamicCache as new () => Dynamic) implements Quantizing {
    readonly #options: StoreOptions;
    readonly #skipLayers: SkipLayers | undefined;
    readonly #given: WasmBackend | undefined;
    #own: WasmBackend | undefined;
    /** By what the names of their entries begin with. They stay while their tokens are given out, too. */
    readonly #layers = new Map<string, RestingLayer>();
    /** The tensors that were made of a layer last. */
    readonly #lent = new WeakMap<RestingLayer, Pair<T>>();

    constructor(given: QuantizedDynamicCacheOptions = {}) {
      super();
      checkOptions(given, 'options', optionNames);
      const { skipLayers, backend, ...options } = given;
      if (backend !== undefined) checkBackend(backend);
      if (backend && !backend.synchronous) throw new TypeError('"backend" expected one that answers at once (wasmBackend()), got one that gives promises');
      if (skipLayers !== undefined && !Array.isArray(skipLayers) && typeof skipLayers !== 'function') throw new TypeError(`"skipLayers" expected an array of layer numbers, or a function, got ${describe(skipLayers)}`);
      if (options.dtype !== undefined) for (const side of ['k', 'v'] as const) resolveCacheDtype(sideOf(options.dtype, side) ?? 'e4m3fn', 'f32', `${side}.dtype`);
      this.#options = options;
      this.#skipLayers = skipLayers;
      this.#given = backend;
    }

    get #backend(): WasmBackend {
      return this.#given ?? (this.#own ??= wasmBackend());
    }

    /** The tensor of an entry, unless it is at rest. */
    #tensor(name: string): TransformersTensor | undefined {
      return Object.getOwnPropertyDescriptor(this, name)?.value;
    }

    #put(name: string, tensor: unknown): void {
      Object.defineProperty(this, name, { value: tensor, writable: true, enumerable: true, configurable: true });
    }

    /** Makes an entry one that is dequantized when it is read. */
    #rest(prefix: string, side: 'key' | 'value', layer: RestingLayer): void {
      const get = (): T => this.#wake(prefix, layer)[side];
      const set = (tensor: unknown): void => this.#put(`${prefix}${side}`, tensor);
      Object.defineProperty(this, `${prefix}${side}`, { get, set, enumerable: true, configurable: true });
    }

    /** Both sides at once: they lie in the same pages, and who wants one wants the other. */
    #wake(prefix: string, layer: RestingLayer): Pair<T> {
      const values = layer.read();
      const [batch, kvHeads, , headDim] = layer.rows.dims;
      const tensor = (data: Float32Array | Uint16Array): T => new Tensor(layer.rows.type, data, [batch, kvHeads, layer.tokens, headDim]);
      const pair = { key: tensor(values.key), value: tensor(values.value) };
      this.#lent.set(layer, pair);
      this.#put(`${prefix}key`, pair.key);
      this.#put(`${prefix}value`, pair.value);
      return pair;
    }

    override get_seq_length(): number {
      const first = Object.keys(this).find((name) => name.startsWith('past_key_values.'));
      const layer = first !== undefined && !this.#tensor(first) && this.#layers.get(entryName.exec(first)![1]);
      return layer ? layer.tokens : super.get_seq_length();
    }

    override update(entries: Record<string, any>): void {
      // What is at rest must not be dequantized only to be replaced.
      for (const name in entries) if (Object.hasOwn(this, name) && !this.#tensor(name)) this.#put(name, undefined);
      super.update(entries);
    }

    async quantize(): Promise<void> {
      const found = this.#find();
      const checked = found.map((pair) => ({ pair, ...this.#check(pair) }));
      for (const { pair, rows, layer } of checked) await this.#store(pair, rows, layer);
    }

    /** Layers with tokens that are not at rest. */
    #find(): Found[] {
      return Object.keys(this).flatMap((name) => {
        const match = entryName.exec(name);
        if (match?.[3] !== 'key' || skips(this.#skipLayers, Number(match[2]))) return [];
        const [key, value] = [this.#tensor(name), this.#tensor(`${match[1]}value`)];
        return key && value && key.dims.at(-2) !== 0 ? [{ prefix: match[1], key, value }] : [];
      });
    }

    /** @throws TypeError or RangeError naming the entry that does not fit */
    #check({ prefix, key, value }: Found): { readonly rows: Rows; readonly layer: Layer } {
      const rows = checkRows(key, `${prefix}key`);
      checkRows(value, `${prefix}value`);
      if (value.type !== key.type || value.dims.some((dim, i) => dim !== key.dims[i])) {
        throw new RangeError(`"${prefix}value" expected ${key.type} [${key.dims.join(', ')}], as the keys, got ${value.type} [${value.dims.join(', ')}]: "skipLayers" leaves a layer as it is`);
      }
      try {
        return { rows, layer: resolveStore(this.#options, rows) };
      } catch (error) {
        if (error instanceof Error) error.message = `${prefix}key: ${error.message}`;
        throw error;
      }
    }

    async #store({ prefix, key, value }: Found, rows: Rows, resolved: Layer): Promise<void> {
      const held = this.#layers.get(prefix);
      const lent = held && this.#lent.get(held);
      const layer = lent?.key === key && lent.value === value ? held! : await this.#takeIn({ prefix, key, value }, rows, resolved);
      this.#lent.delete(layer);
      this.#rest(prefix, 'key', layer);
      this.#rest(prefix, 'value', layer);
    }

    async #takeIn({ prefix, key, value }: Found, rows: Rows, resolved: Layer): Promise<RestingLayer> {
      const held = this.#layers.get(prefix);
      const given = { key: await valuesOf(key), value: await valuesOf(value) };
      const layer = held?.continues(given, rows) ? held : new RestingLayer(rows, resolved);
      layer.append(this.#backend, given, rows);
      if (layer !== held) held?.dispose();
      this.#layers.set(prefix, layer);
      for (const tensor of [key, value]) if (tensor.location === 'gpu-buffer') tensor.dispose();
      return layer;
    }

    get memory(): CacheMemory {
      const tensors = Object.keys(this).map((name) => this.#tensor(name));
      return {
        quantized: [...this.#layers.values()].reduce((sum, { bytes }) => sum + bytes, 0),
        tensors: tensors.reduce((sum, tensor) => sum + (tensor ? bytesOfTensor(tensor) : 0), 0),
      };
    }

    /** Gives back all memory. The cache is empty then, as a new one. */
    override async dispose(): Promise<void> {
      for (const layer of this.#layers.values()) layer.dispose();
      this.#layers.clear();
      this.#own?.dispose();
      this.#own = undefined;
      const tensors = Object.keys(this).map((name) => this.#tensor(name));
      for (const name of Object.keys(this)) delete (this as Record<string, unknown>)[name];
      for (const tensor of tensors) if (tensor?.location === 'gpu-buffer') tensor.dispose();
    }
  }

  return QuantizedDynamicCache as unknown as new (options?: QuantizedDynamicCacheOptions) => C & Quantizing;
}
