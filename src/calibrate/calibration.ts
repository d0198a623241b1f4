import type { CacheObserver, LayerShape } from '../cache/observer.js';
import { floatDtypeOf, type FloatArray, type FloatDtype } from '../formats.js';
import type { KvScales, LayerScales } from '../kv-scales.js';
import { checkInteger } from '../layout.js';
import { GridSearch } from './grid-search.js';
import { Floats, groupsOf } from './groups.js';
import { Observer, updateOf, type ObserverParts } from './observer.js';
import { resolveCalibration, type CalibrationOptions, type ResolvedCalibration } from './options.js';
import { maxOfQueryGroups, scalesOf } from './scales.js';
import { ScaleRule } from './scale-rule.js';

/** How the arrays that are observed are to be read. */
export interface ObserveOptions {
  /** Of key and value, or of q; needed for Uint16Array. */
  readonly dtype?: FloatDtype;
}

/** What is known of a layer. */
interface LayerState {
  tokens: number;
  queryTokens: number;
  readonly k: Observer;
  readonly v: Observer;
  readonly q: Observer | undefined;
}

/**
 * Given scales of a model from its keys and values, in any number of calls and as much memory as one needs.
 *
 * ```ts
 * const calibration = new Calibration({ layers: 24, kvHeads: 2, headDim: 64, observer: 'mse', granularity: 'head' });
 * const detach = cache.attach(calibration);   // a KvCache of dtype f32, in which the model runs; or calibration.observe(…)
 * // …
 * const scales = calibration.scales();
 * const quantized = new KvCache(backend, { layers: scales.layers, kvHeads: 2, headDim: 64, capacity: 4096 });
 * ```
 *
 * Observers, granularities and the default recipe are llm-compressor's (`observers/min_max.py`, `moving_base.py`, `mse.py`, strategies
 * `tensor` and `attn_head`), where `channel` is refused for keys and values. One call of `observe` is one batch there: what
 * `minmax` and `mse` average are the ranges of calls, however many tokens each has.
 *
 * NaN is left out. An infinity gives no range: from then on `scales` throws, whatever the observer.
 */
export class Calibration implements CacheObserver {
  /** By layer; `queryHeads` is absent where queries are not observed. */
  readonly shapes: readonly LayerShape[];
  readonly #options: ResolvedCalibration;
  readonly #rule: ScaleRule;
  readonly #layers: readonly LayerState[];

  /** @throws TypeError or RangeError naming the option that does not fit */
  constructor(options: CalibrationOptions) {
    const resolved = resolveCalibration(options);
    const { shapes, format, granularity, recipe, observer, averagingConstant, search } = resolved;
    this.#options = resolved;
    this.shapes = shapes;
    const longest = Math.max(...shapes.map(({ kvHeads, queryHeads = 0, headDim }) => Math.max(kvHeads, queryHeads) * headDim));
    const mostGroups = Math.max(...shapes.map(({ kvHeads, queryHeads = 0, headDim }) => groupsOf(granularity, Math.max(kvHeads, queryHeads), headDim).count));
    this.#rule = new ScaleRule(format, recipe, mostGroups);
    const floats = new Floats(longest);
    const parts: ObserverParts = { floats, update: updateOf(observer, averagingConstant), search: search && new GridSearch(this.#rule, floats, search, mostGroups) };
    this.#layers = shapes.map(({ kvHeads, queryHeads, headDim }) => {
      const observerOf = (heads: number): Observer => new Observer(groupsOf(granularity, heads, headDim), parts);
      return { tokens: 0, queryTokens: 0, k: observerOf(kvHeads), v: observerOf(kvHeads), q: queryHeads === undefined ? undefined : observerOf(queryHeads) };
    });
  }

  /**
   * Tokens whose keys and values a layer was shown.
   * @throws RangeError for a layer that there is not
   */
  tokens(layer: number): number {
    return this.#layer(layer).tokens;
  }

  #layer(layer: number): LayerState {
    return this.#layers[checkInteger(layer, 'layer', 0, this.#layers.length - 1)];
  }

  /**
   * Takes in a batch of keys and values. A call without tokens changes nothing.
   * @param layer index of the layer
   * @param key [tokens, kvHeads, headDim], f32, or f16/bf16 bits with `dtype` stated
   * @param value the same
   * @throws TypeError or RangeError naming what does not fit; nothing is taken in then
   */
  observe(layer: number, key: FloatArray, value: FloatArray, options: ObserveOptions = {}): void {
    const state = this.#layer(layer);
    const { kvHeads, headDim } = this.shapes[layer];
    const dtype = floatDtypeOf(key, options.dtype, 'key');
    if (floatDtypeOf(value, options.dtype, 'value') !== dtype) throw new TypeError(`"value" expected the dtype of "key" (${dtype})`);
    const tokens = tokensOf(key, kvHeads, headDim, 'key');
    if (value.length !== key.length) throw new RangeError(`"value" expected ${tokens} tokens × ${kvHeads} heads × ${headDim} = ${key.length} elements, as "key", got ${value.length}`);
    if (tokens === 0) return;
    state.k.observe(key, dtype);
    state.v.observe(value, dtype);
    state.tokens += tokens;
  }

  /**
   * Takes in a batch of queries.
   * @param q [tokens, queryHeads, headDim], f32, or f16/bf16 bits with `dtype` stated
   * @throws TypeError or RangeError naming what does not fit, TypeError without `queries: true`; nothing is taken in then
   */
  observeQuery(layer: number, q: FloatArray, options: ObserveOptions = {}): void {
    const state = this.#layer(layer);
    const { queryHeads, headDim } = this.shapes[layer];
    if (state.q === undefined) throw new TypeError('"observeQuery" expected a calibration that was made with queries: true');
    const dtype = floatDtypeOf(q, options.dtype, 'q');
    const tokens = tokensOf(q, queryHeads!, headDim, 'q');
    if (tokens === 0) return;
    state.q.observe(q, dtype);
    state.queryTokens += tokens;
  }

  /**
   * The scales so far, ready for a cache: `new KvCache(backend, { layers: scales.layers, … })`. More may be observed afterwards.
   *
   * Each is what the recipe makes of max(|min|, |max|) of its group as f32: what quantizes a group of that amax on write has the same
   * bits. Scales of queries are found for each query head, and the largest of those that share a KV head is its scale.
   * @throws Error naming the layers without tokens, or, with `queries`, without queries; RangeError naming the layer and side that had
   * an infinity, or a group in which all is NaN, or whose scale is 0 or infinite
   */
  scales(): KvScales {
    const { format, granularity } = this.#options;
    this.#assertObserved('tokens', ({ tokens }) => tokens > 0);
    this.#assertObserved('queries', ({ q, queryTokens }) => q === undefined || queryTokens > 0);
    const layers = this.#layers.map(({ k, v, q }, index): LayerScales => {
      const of = (observer: Observer, side: string): Float32Array => scalesOf(observer, this.#rule, `${side} of layer ${index}`);
      const scales: LayerScales = { dtype: format, granularity, scale: { k: of(k, 'keys'), v: of(v, 'values') } };
      return q === undefined ? scales : { ...scales, qScale: maxOfQueryGroups(of(q, 'queries'), granularity, this.shapes[index]) };
    });
    return { dtype: format, granularity, layers };
  }

  #assertObserved(what: string, isObserved: (layer: LayerState) => boolean): void {
    const missing = this.#layers.flatMap((layer, index) => (isObserved(layer) ? [] : [index]));
    if (missing.length > 0) throw new Error(`"scales" expected ${what} to have been observed in every layer, missing ${missing.join(', ')}`);
  }
}

/** @throws RangeError for what is no whole number of tokens */
function tokensOf(values: FloatArray, heads: number, headDim: number, argument: string): number {
  const tokens = values.length / (heads * headDim);
  if (!Number.isInteger(tokens)) throw new RangeError(`"${argument}" expected [tokens, ${heads} heads, ${headDim}], a multiple of ${heads * headDim} elements, got ${values.length}`);
  return tokens;
}
