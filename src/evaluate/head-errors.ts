/** How far from the values that a model has are those that a cache gives back: head by head. */
import type { WasmBackend } from '../index.js';
import type { Storage } from '../model/cached-model.js';
import { RoundTrip, type Shape } from './round-trip.js';

/** Sums of squares, [layers, kvHeads]. */
class SquareSums {
  readonly #shape: Shape;
  readonly #errors: Float64Array;
  readonly #values: Float64Array;

  constructor(shape: Shape) {
    this.#shape = shape;
    this.#errors = new Float64Array(shape.layers * shape.kvHeads);
    this.#values = new Float64Array(shape.layers * shape.kvHeads);
  }

  /** @param exact, stored [kvHeads, tokens, headDim] */
  add(layer: number, exact: Float32Array, stored: Float32Array): void {
    const { kvHeads } = this.#shape;
    const perHead = exact.length / kvHeads;
    for (let head = 0; head < kvHeads; head++) {
      let [error, value] = [0, 0];
      for (let i = head * perHead; i < (head + 1) * perHead; i++) {
        error += (stored[i] - exact[i]) ** 2;
        value += exact[i] ** 2;
      }
      this.#errors[layer * kvHeads + head] += error;
      this.#values[layer * kvHeads + head] += value;
    }
  }

  /** √(Σ error² / Σ value²), [layers][kvHeads]; 0 where there is no error, also of nothing. */
  get relative(): number[][] {
    const { layers, kvHeads } = this.#shape;
    const at = (i: number): number => (this.#errors[i] === 0 ? 0 : Math.sqrt(this.#errors[i] / this.#values[i]));
    return Array.from({ length: layers }, (_, layer) => Array.from({ length: kvHeads }, (_, head) => at(layer * kvHeads + head)));
  }
}

/** What a way to store does to each head's keys and values: those of one model, so that errors do not add up from layer to layer. */
export class HeadErrors {
  readonly #trip: RoundTrip;
  readonly #k: SquareSums;
  readonly #v: SquareSums;

  /** @param backend stays the caller's */
  constructor(backend: WasmBackend, shape: Shape, storage: Storage) {
    this.#trip = new RoundTrip(backend, shape, storage);
    this.#k = new SquareSums(shape);
    this.#v = new SquareSums(shape);
  }

  /** @param key, value [tokens, kvHeads, headDim] */
  add(layer: number, key: Float32Array, value: Float32Array): void {
    const { k, v } = this.#trip.pass(layer, key, value);
    this.#k.add(layer, k.exact, k.stored);
    this.#v.add(layer, v.exact, v.stored);
  }

  get result(): { readonly k: number[][]; readonly v: number[][] } {
    return { k: this.#k.relative, v: this.#v.relative };
  }
}
