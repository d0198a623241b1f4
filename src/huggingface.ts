/**
 * The cache that Hugging Face's models write and read: each layer gives its new keys and values, and gets all that there are, to
 * attend to by itself. `past_key_values` of Transformers; for a model that runs on Transformers.js' tensors, or on plain arrays.
 */
import type { AppendCall } from './backend.js';
import { KvCache } from './cache/cache.js';
import { resolveCache, type KvCacheOptions, type Layer, type LayerConfig } from './cache/config.js';
import { readSpans, type Rows } from './cache/rows.js';
import type { Sequence } from './cache/sequence.js';
import type { Step } from './cache/step.js';
import { describe, floatDtypeOf, type FloatArray, type FloatDtype } from './formats.js';
import { checkInteger, type PageShape } from './layout.js';
import { widen } from './layouts/half-scales.js';
import { checkBackend, checkObject } from './options.js';
import { swapRows } from './swap-rows.js';
import type { WasmBackend } from './wasm/backend.js';

/** Keys or values of one layer, [1, kvHeads, seq, headDim]. A float32 `Tensor` of Transformers.js is one as it is. */
export interface HuggingFaceTensor {
  /** f32 values, or f16/bf16 bits with `dtype` stated. */
  readonly data: FloatArray;
  /** [1, kvHeads, seq, headDim]. */
  readonly dims: readonly number[];
  /** Needed for a Uint16Array. */
  readonly dtype?: FloatDtype;
}

/** All keys, and all values: a new array each, f32, [1, kvHeads, tokens, headDim]. */
type Updated = [HuggingFaceTensor & { readonly data: Float32Array }, HuggingFaceTensor & { readonly data: Float32Array }];

/** What a layer stores, as in {@link LayerConfig}: how it attends is the model's. */
export type HuggingFaceLayer = Pick<LayerConfig, 'kvHeads' | 'headDim' | 'dtype' | 'modelDtype' | 'granularity' | 'groupSize' | 'recipe' | 'scalePrecision' | 'scale'>;

export interface HuggingFaceCacheOptions extends HuggingFaceLayer, Pick<KvCacheOptions, 'skipLayers' | 'preset' | 'blockSize' | 'chunk' | 'residual' | 'residualRule' | 'residualDtype'> {
  /** How many layers, all alike; or each layer's own configuration. */
  readonly layers: number | readonly HuggingFaceLayer[];
  /** Tokens of the sequence, at most. Needed where they are stored. */
  readonly capacity?: number;
  /**
   * False: nothing is stored, and `update` gives back what it was given, quantized and dequantized: what storing would do to a
   * model. llm-compressor's `QuantizedKVParameterCache`. Default true.
   */
  readonly store?: boolean;
}

/** Keys and values that were given, [kvHeads, tokens, headDim], checked. */
interface Given {
  readonly key: FloatArray;
  readonly value: FloatArray;
  readonly dtype: FloatDtype;
  readonly tokens: number;
}

/** @throws TypeError or RangeError naming what does not fit */
function checkTensor(tensor: HuggingFaceTensor, { kvHeads, headDim }: PageShape, argument: string): FloatDtype {
  if (typeof tensor !== 'object' || tensor === null) throw new TypeError(`"${argument}" expected { data, dims }, got ${describe(tensor)}`);
  const { data, dims } = tensor;
  const dtype = floatDtypeOf(data, tensor.dtype, `${argument}.data`);
  const [batch, heads, tokens, dim] = Array.isArray(dims) && dims.length === 4 ? (dims as readonly number[]) : [];
  if (batch !== 1 || heads !== kvHeads || !Number.isSafeInteger(tokens) || tokens < 1 || dim !== headDim) {
    throw new RangeError(`"${argument}.dims" expected [1, ${kvHeads}, seq, ${headDim}] of one sequence with new tokens, got ${Array.isArray(dims) ? `[${dims.join(', ')}]` : describe(dims)}`);
  }
  const expected = kvHeads * tokens * headDim;
  if (data.length !== expected) throw new RangeError(`"${argument}.data" expected ${expected} elements, as its dims say, got ${data.length}`);
  return dtype;
}

/** @throws TypeError or RangeError naming what does not fit */
function checkStates(keyStates: HuggingFaceTensor, valueStates: HuggingFaceTensor, shape: PageShape): Given {
  const dtype = checkTensor(keyStates, shape, 'keyStates');
  const valueDtype = checkTensor(valueStates, shape, 'valueStates');
  if (valueDtype !== dtype) throw new TypeError(`"valueStates.dtype" expected ${dtype}, as that of "keyStates", got ${valueDtype}`);
  const [tokens, ofValues] = [keyStates.dims[2], valueStates.dims[2]];
  if (ofValues !== tokens) throw new RangeError(`"valueStates.dims[2]" expected ${tokens} tokens, as "keyStates", got ${ofValues}`);
  return { key: keyStates.data, value: valueStates.data, dtype, tokens };
}

/** [kvHeads, tokens, headDim] as [tokens, kvHeads, headDim]. */
function tokenMajor(x: FloatArray, tokens: number, { kvHeads, headDim }: PageShape): FloatArray {
  if (tokens === 1 || kvHeads === 1) return x;
  return swapRows(x, [kvHeads, tokens], headDim);
}

/** What becomes of the states that a cache is given. */
interface States {
  readonly layers: readonly PageShape[];
  update(layer: number, given: Given): Rows;
  lengthOf(layer: number): number;
  forget(): void;
  dispose(): void;
}

/** One sequence of a KvCache. A forward pass is one step of it, which layer 0 begins and the last layer commits. */
class StoredStates implements States {
  readonly layers: readonly PageShape[];
  readonly #cache: KvCache;
  readonly #sequence: Sequence;
  readonly #chunk: number;
  readonly #capacity: number;
  /** Whether a layer gives back the first tokens as they came, as it has what is quantized for those after them only. */
  readonly #givesFirst: readonly boolean[];
  #step: Step | undefined;
  /** The layer that comes next. */
  #next = 0;

  constructor(backend: WasmBackend, options: KvCacheOptions) {
    const { layers, residual } = resolveCache(options);
    const ring = layers.findIndex((layer) => layer.ring);
    if (ring >= 0) throw new TypeError(`"slidingWindow" expected to be absent, as layers are given back all of their tokens, got one in layer ${ring}`);
    this.layers = layers.map(({ layout }) => layout);
    this.#givesFirst = layers.map((layer) => layer.residual !== undefined && residual?.rule === 'huggingface');
    this.#capacity = options.capacity;
    this.#chunk = options.chunk ?? options.capacity;
    this.#cache = new KvCache(backend, options);
    this.#sequence = this.#cache.createSequence();
  }

  update(layer: number, given: Given): Rows {
    if (layer !== this.#next) throw new Error(`"layerIdx" expected ${this.#next}, as layers come in order, got ${layer}: resetStates() forgets a pass that was begun`);
    const isFirst = this.#sequence.length === 0;
    const step = layer === 0 ? this.#begin(given) : this.#goOn(given);
    const shape = this.layers[layer];
    try {
      void step.append(layer, tokenMajor(given.key, given.tokens, shape), tokenMajor(given.value, given.tokens, shape), { dtype: given.dtype });
    } catch (error) {
      if (layer === 0) step.abort();
      throw error;
    }
    const rows = isFirst && this.#givesFirst[layer] ? givenRows(given) : step.readRows(layer);
    this.#next = (layer + 1) % this.layers.length;
    this.#step = step;
    if (this.#next === 0) this.#commit();
    return rows;
  }

  #begin({ tokens }: Given): Step {
    if (tokens > this.#chunk) throw new RangeError(`"keyStates.dims[2]" expected at most ${this.#chunk} tokens in a call, the cache's "chunk" ("capacity" unless stated), got ${tokens}`);
    const room = this.#capacity - this.#sequence.length;
    if (tokens > room) throw new RangeError(`"keyStates.dims[2]" expected at most ${room} more tokens, as the cache's "capacity" is ${this.#capacity}, got ${tokens}`);
    return this.#cache.begin([{ sequence: this.#sequence, tokens }]);
  }

  #goOn({ tokens }: Given): Step {
    const step = this.#step!;
    if (tokens !== step.tokens) throw new RangeError(`"keyStates.dims[2]" expected ${step.tokens} tokens, as in the layers before, got ${tokens}`);
    return step;
  }

  #commit(): void {
    this.#step!.commit();
    this.#step = undefined;
  }

  lengthOf(layer: number): number {
    return this.#sequence.length + (layer < this.#next ? this.#step!.tokens : 0);
  }

  forget(): void {
    this.#step?.abort();
    this.#step = undefined;
    this.#next = 0;
    this.#sequence.truncate(0);
  }

  dispose(): void {
    this.#cache.dispose();
  }
}

/** As f32, in arrays of their own: the caller's stay the caller's. */
function givenRows({ key, value, dtype }: Given): Rows {
  const own = (x: FloatArray): Float32Array => (x instanceof Float32Array ? x.slice() : widen(x, dtype));
  return { k: own(key), v: own(value) };
}

/** Pages that hold tokens no longer than it takes to read them back. */
class FakeQuantizedStates implements States {
  readonly layers: readonly PageShape[];
  readonly #backend: WasmBackend;
  readonly #layers: readonly Layer[];

  constructor(backend: WasmBackend, options: KvCacheOptions) {
    this.#backend = backend;
    this.#layers = resolveCache(options).layers;
    this.layers = this.#layers.map(({ layout }) => layout);
  }

  update(layer: number, { key, value, dtype, tokens }: Given): Rows {
    const { layout, recipe, kScale, vScale } = this.#layers[layer];
    const count = Math.ceil(tokens / layout.blockSize);
    const pages = this.#backend.createPages(layout, count);
    try {
      const call: AppendCall = {
        pages, key: tokenMajor(key, tokens, layout), value: tokenMajor(value, tokens, layout), dtype,
        slotMapping: Int32Array.from({ length: tokens }, (_, token) => token), recipe, kScale, vScale,
      };
      this.#backend.append(call);
      return readSpans([{ pages, list: Array.from({ length: count }, (_, page) => page), tokens, kScale, vScale }]);
    } finally {
      pages.dispose();
    }
  }

  lengthOf(): number {
    return 0;
  }

  forget(): void {}

  dispose(): void {}
}

/** What only makes sense where tokens are stored. */
const ofStored = ['capacity', 'chunk', 'residual', 'residualRule', 'residualDtype'] as const;

function fakeQuantized(backend: WasmBackend, options: Omit<HuggingFaceCacheOptions, 'store'>): States {
  for (const name of ofStored) if (options[name] !== undefined) throw new TypeError(`"${name}" expected to be absent where "store" is false, got ${describe(options[name])}`);
  return new FakeQuantizedStates(backend, { ...options, layout: 'paged', capacity: 1 });
}

function stored(backend: WasmBackend, { capacity, chunk, residualRule, ...options }: Omit<HuggingFaceCacheOptions, 'store'>): States {
  const room = checkInteger(capacity as number, 'capacity', 1);
  const rule = options.residual === undefined ? residualRule : (residualRule ?? 'huggingface');
  return new StoredStates(backend, { ...options, capacity: room, context: room, chunk: chunk ?? room, residualRule: rule });
}

/**
 * One sequence's keys and values as Hugging Face's models use them, stored in 8 bits.
 *
 * ```ts
 * const cache = new HuggingFaceCache(wasmBackend(), { layers: 2, kvHeads: 8, headDim: 128, capacity: 4096, residual: 128 });
 * const [key, value] = cache.update(keyStates, valueStates, layerIdx); // attend to these
 * ```
 *
 * With `residual` it does as Transformers' `QuantizedCache` does with `residual_length`: the first tokens are given back as they
 * came, and later what was quantized, dequantized, before what was not. But for one thing: there, all is quantized anew each time
 * that the residual overflows, also what was before; here each token once, so that no error adds up. `residualRule: 'page'` keeps
 * the most recent ones at all times. Without `residual` all is quantized at once, and given back so.
 */
export class HuggingFaceCache {
  readonly #states: States;

  /**
   * @param backend stays the caller's: the cache does not dispose of it
   * @param options.residualRule Default `huggingface`
   * @param options.chunk new tokens in a forward pass, at most. Default `capacity`
   * @throws TypeError or RangeError naming the option that does not fit
   */
  constructor(backend: WasmBackend, options: HuggingFaceCacheOptions) {
    checkBackend(backend);
    if (!backend.synchronous) throw new TypeError('"backend" expected one that answers at once (wasmBackend()), got one that gives promises');
    checkObject(options, 'options');
    const { store = true, ...rest } = options;
    if (typeof store !== 'boolean') throw new TypeError(`"store" expected true or false, got ${describe(store)}`);
    this.#states = store ? stored(backend, rest) : fakeQuantized(backend, rest);
  }

  /**
   * Takes a layer's new keys and values, and gives back all that the layer has. Layers come in order, each once in a forward
   * pass: the last one's call makes the pass's tokens part of the sequence. Where nothing is stored, they come as they like.
   * @param keyStates [1, kvHeads, seq, headDim]
   * @param valueStates the same
   * @param layerIdx from 0
   * @param _cacheKwargs what Transformers passes to caches of other kinds; not looked at
   * @returns keys and values, f32, [1, kvHeads, tokens, headDim] each: of all tokens, the new ones last; where nothing is stored
   * of these alone
   * @throws TypeError, RangeError or Error naming what does not fit; nothing is written then, and the pass can go on
   */
  update(keyStates: HuggingFaceTensor, valueStates: HuggingFaceTensor, layerIdx: number, _cacheKwargs?: unknown): Updated {
    const layout = this.#states.layers[this.#checkLayer(layerIdx)];
    const rows = this.#states.update(layerIdx, checkStates(keyStates, valueStates, layout));
    const { kvHeads, headDim } = layout;
    const tensorOf = (data: Float32Array) => ({ data, dims: [1, kvHeads, data.length / (kvHeads * headDim), headDim], dtype: 'f32' as const });
    return [tensorOf(rows.k), tensorOf(rows.v)];
  }

  #checkLayer(layerIdx: number): number {
    return checkInteger(layerIdx, 'layerIdx', 0, this.#states.layers.length - 1);
  }

  /**
   * Tokens of a layer, quantized or not: during a forward pass, the new ones count in the layers that have got them. Where
   * nothing is stored it is 0, as llm-compressor's says: what `update` gives back then has no past, and neither do the positions
   * and the mask that a model makes of this number.
   */
  getSeqLength(layerIdx = 0): number {
    return this.#states.lengthOf(this.#checkLayer(layerIdx));
  }

  /** Begins anew: forgets all tokens, also those of a forward pass that is not over. */
  reset(): void {
    this.#states.forget();
  }

  /**
   * The same, under llm-compressor's name for it. There, `reset` also drops the scales that were observed; here scales are those
   * that the cache was made with, or are computed for each token.
   */
  resetStates(): void {
    this.reset();
  }

  /** Gives back the memory; the backend stays as it is. */
  dispose(): void {
    this.#states.dispose();
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
