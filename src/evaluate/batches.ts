/** Tokens of many steps, shown to observers as one batch: what averages over calls then averages over fewer of them. */
import type { CacheObserver, LayerShape } from '../cache/observer.js';
import type { FloatArray } from '../formats.js';

/** What a layer was given since the last batch. */
class Held {
  #parts: Float32Array[] = [];
  #length = 0;

  get length(): number {
    return this.#length;
  }

  add(values: FloatArray): void {
    this.#parts.push(Float32Array.from(values));
    this.#length += values.length;
  }

  take(): Float32Array {
    const all = new Float32Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    this.#parts = [];
    this.#length = 0;
    return all;
  }
}

interface HeldLayer {
  readonly key: Held;
  readonly value: Held;
  readonly q: Held;
}

/** Attach it to a cache that is given f32, and `flush` at the end. */
export class Batches implements CacheObserver {
  readonly shapes: readonly LayerShape[];
  readonly #layers: readonly HeldLayer[];

  /**
   * @param observers of one shape
   * @param tokens of a batch, at least: it ends with the step that fills it
   */
  constructor(
    private readonly observers: readonly CacheObserver[],
    private readonly tokens: number,
  ) {
    this.shapes = observers[0].shapes;
    this.#layers = this.shapes.map(() => ({ key: new Held(), value: new Held(), q: new Held() }));
  }

  observe(layer: number, key: FloatArray, value: FloatArray): void {
    const held = this.#layers[layer];
    held.key.add(key);
    held.value.add(value);
    const { kvHeads, headDim } = this.shapes[layer];
    if (held.key.length >= this.tokens * kvHeads * headDim) this.#showStates(layer);
  }

  observeQuery(layer: number, q: FloatArray): void {
    const held = this.#layers[layer].q;
    held.add(q);
    const { queryHeads, headDim } = this.shapes[layer];
    if (held.length >= this.tokens * queryHeads! * headDim) this.#showQueries(layer);
  }

  #showStates(layer: number): void {
    const { key, value } = this.#layers[layer];
    const [keys, values] = [key.take(), value.take()];
    for (const observer of this.observers) observer.observe(layer, keys, values, {});
  }

  #showQueries(layer: number): void {
    const q = this.#layers[layer].q.take();
    for (const observer of this.observers) observer.observeQuery(layer, q, {});
  }

  /** Shows what is left. */
  flush(): void {
    for (const [layer, { key, q }] of this.#layers.entries()) {
      if (key.length > 0) this.#showStates(layer);
      if (q.length > 0) this.#showQueries(layer);
    }
  }
}
