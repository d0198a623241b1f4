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

/** Between two observers: what searches takes its time with a batch. What it throws ends the showing. */
type Pause = () => void | Promise<void>;

/** Attach it to a cache that is given f32, call `showFull` from time to time, and `showAll` at the end. */
export class Batches implements CacheObserver {
  readonly shapes: readonly LayerShape[];
  readonly #layers: readonly HeldLayer[];

  /**
   * @param observers of one shape
   * @param tokens of a batch, at least: it ends when `showFull` finds so many
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
  }

  observeQuery(layer: number, q: FloatArray): void {
    this.#layers[layer].q.add(q);
  }

  /** Shows batches that are full. */
  showFull(pause?: Pause): Promise<void> {
    return this.#show(this.tokens, pause);
  }

  /** Shows what is left. */
  showAll(pause?: Pause): Promise<void> {
    return this.#show(1, pause);
  }

  /** @param least tokens of what is shown */
  async #show(least: number, pause?: Pause): Promise<void> {
    for (const [layer, { key, value, q }] of this.#layers.entries()) {
      const { kvHeads, queryHeads = 0, headDim } = this.shapes[layer];
      if (key.length >= least * kvHeads * headDim) {
        const [keys, values] = [key.take(), value.take()];
        await this.#each((observer) => observer.observe(layer, keys, values, {}), pause);
      }
      if (q.length > 0 && q.length >= least * queryHeads * headDim) {
        const queries = q.take();
        await this.#each((observer) => observer.observeQuery(layer, queries, {}), pause);
      }
    }
  }

  async #each(show: (observer: CacheObserver) => void, pause?: Pause): Promise<void> {
    for (const observer of this.observers) {
      show(observer);
      await pause?.();
    }
  }
}
