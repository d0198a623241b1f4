/** Who is shown what steps are given: all that a cache knows of calibration. */
import { describe, type FloatArray, type FloatDtype } from '../formats.js';
import type { Layer } from './config.js';

/** Heads and head dimension of a layer. */
export interface LayerShape {
  /** Heads of keys and values. */
  readonly kvHeads: number;
  /** Elements of a head. */
  readonly headDim: number;
  /** Absent where queries are of no use. */
  readonly queryHeads: number | undefined;
}

/** What can be attached to a cache: a `Calibration`, or an object of your own. */
export interface CacheObserver {
  /** By layer; the cache's must be the same. */
  readonly shapes: readonly LayerShape[];
  /**
   * What a step appends to a layer. The arrays are the caller's, and may change as soon as this returns.
   * @param key [tokens, kvHeads, headDim]
   * @param value the same
   * @param options the dtype, where they are Uint16Arrays
   */
  observe(layer: number, key: FloatArray, value: FloatArray, options: { readonly dtype?: FloatDtype }): void;
  /**
   * What a step attends with, in layers that have `queryHeads`.
   * @param q [tokens, queryHeads, headDim]
   */
  observeQuery(layer: number, q: FloatArray, options: { readonly dtype?: FloatDtype }): void;
}

/** @throws RangeError naming the first layer that is another */
function checkShapes(shapes: readonly LayerShape[], layers: readonly Layer[]): void {
  if (shapes.length !== layers.length) throw new RangeError(`"observer" expected ${layers.length} layers, as the cache has, got ${shapes.length}`);
  for (const [index, { layout: { kvHeads, headDim }, queryHeads }] of layers.entries()) {
    const shape: LayerShape = { kvHeads, headDim, queryHeads: shapes[index].queryHeads === undefined ? undefined : queryHeads };
    for (const name of ['kvHeads', 'headDim', 'queryHeads'] as const) {
      if (shapes[index][name] !== shape[name]) throw new RangeError(`"observer" expected ${name} ${shape[name]} in layer ${index}, as the cache has, got ${shapes[index][name]}`);
    }
  }
}

/**
 * Adds an observer to those of a cache.
 * @returns what takes it away again
 * @throws TypeError for what is none, or is there already; RangeError for one that was made for other layers
 */
export function attachTo(observers: CacheObserver[], observer: CacheObserver, layers: readonly Layer[]): () => void {
  if (typeof observer?.observe !== 'function' || typeof observer.observeQuery !== 'function' || !Array.isArray(observer.shapes)) {
    throw new TypeError(`"observer" expected a Calibration, or an object with shapes, observe and observeQuery, got ${describe(observer)}`);
  }
  if (observers.includes(observer)) throw new TypeError('"observer" expected one that is not attached to this cache yet');
  checkShapes(observer.shapes, layers);
  observers.push(observer);
  let isAttached = true;
  return () => {
    if (isAttached) observers.splice(observers.indexOf(observer), 1);
    isAttached = false;
  };
}

/** Shows all who are attached at the time: who is shown something may detach itself. */
export function showAppend(observers: readonly CacheObserver[], layer: number, key: FloatArray, value: FloatArray, options: { readonly dtype?: FloatDtype }): void {
  for (const observer of observers.slice()) observer.observe(layer, key, value, options);
}

/** As {@link showAppend}, those who have a use for queries. */
export function showQuery(observers: readonly CacheObserver[], layer: number, q: FloatArray, options: { readonly dtype?: FloatDtype }): void {
  for (const observer of observers.slice()) if (observer.shapes[layer].queryHeads !== undefined) observer.observeQuery(layer, q, options);
}
