/**
 * The same text through two caches, token by token.
 *
 * Each cache's model goes on with the prompt by its likeliest tokens. Both run on what the first one says, so that their
 * predictions can be compared: KL and errors are of that text. Up to where the second would say something else that is its own
 * text, too; from there on it has a second sequence, forked from the first, for what it says by itself.
 */
import { LogitRows } from '../../src/evaluate/quality.js';
import { RoundTrip } from '../../src/evaluate/round-trip.js';
import { KvCache, wasmBackend, type Backend, type Sequence, type WasmBackend } from '../../src/index.js';
import { feed, type Storage } from '../../src/model/cached-model.js';
import type { LlamaRunner } from '../../src/model/llama.js';
import type { Tokenizer } from '../../src/model/tokenizer.js';
import { largest } from '../generate.js';
import { Pieces } from './pieces.js';

/** One thing of each cache. */
export type Pair<T> = readonly [T, T];

export interface CompareOptions {
  readonly backend: Backend;
  readonly runner: LlamaRunner;
  readonly tokenizer: Tokenizer;
  readonly storages: Pair<Storage>;
  readonly prompt: string;
  /** How many each cache's text goes on for, at most: a text may end, and so may the model's context. */
  readonly tokens: number;
  /** Between layers and tokens. What it throws ends the comparison. */
  readonly breathe?: () => void | Promise<void>;
}

/** Relative errors of stored keys and values of consecutive tokens: ‖stored − exact‖ / ‖exact‖, [tokens, layers, kvHeads]. */
export interface Errors {
  readonly k: Float32Array;
  readonly v: Float32Array;
}

export interface Started {
  readonly type: 'started';
  readonly layers: number;
  readonly kvHeads: number;
  /** The prompt, token by token, beginning with the one that begins a text. */
  readonly prompt: readonly string[];
  /** That will be in a cache, at most. */
  readonly positions: number;
  readonly bytesPerToken: Pair<number>;
}

/** What is known when both caches have more of the text that they share. */
export interface Stored {
  readonly type: 'stored';
  /** The first of these positions; how many there are is the length of `kl`. */
  readonly position: number;
  /** KL(first ‖ second) of the predictions of what comes next, in nats. */
  readonly kl: readonly number[];
  /** Positions at which both find the same token likeliest. */
  readonly agreed: number;
  readonly errors: Pair<Errors>;
  /** Single tokens per second, so far: NaN before there are any. */
  readonly tokensPerSecond: Pair<number>;
}

/** What each cache's text goes on with; undefined where that has ended. */
export interface Said {
  readonly type: 'said';
  readonly pieces: Pair<string | undefined>;
  /** Whether the texts differ, here or before. */
  readonly parted: boolean;
}

export type CompareEvent = Started | Stored | Said;

/** Milliseconds that a pass may take before it lets others have a turn. */
const PATIENCE = 50;

/** ‖stored − exact‖ / ‖exact‖ of a row: 0 where there is no error, also of nothing. */
function relativeError(exact: Float32Array, stored: Float32Array): number {
  let [error, size] = [0, 0];
  for (let i = 0; i < exact.length; i++) {
    error += (stored[i] - exact[i]) ** 2;
    size += exact[i] ** 2;
  }
  return error === 0 ? 0 : Math.sqrt(error / size);
}

/** Tokens of a page: a fork copies the one that it writes to. */
const BLOCK = 16;

/** One of the two caches. */
class Side {
  readonly #runner: LlamaRunner;
  readonly #trip: RoundTrip;
  readonly #pause: () => Promise<void>;
  readonly cache: KvCache;
  /** Of the text that both share. */
  readonly sequence: Sequence;
  #steps = 0;
  #milliseconds = 0;

  /** @param exact gives back at once what is stored, which has the same bytes on every backend */
  constructor({ backend, runner }: CompareOptions, storage: Storage, exact: WasmBackend, capacity: number, pause: () => Promise<void>) {
    const { layers, queryHeads, kvHeads, headDim } = runner.config;
    this.#runner = runner;
    this.#trip = new RoundTrip(exact, runner.config, storage);
    this.#pause = pause;
    this.cache = new KvCache(backend, { layers, queryHeads, kvHeads, headDim, capacity, ...storage });
    this.sequence = this.cache.createSequence();
  }

  /** Of single tokens, without the first, which may compile what it runs. */
  get tokensPerSecond(): number {
    return (1000 * (this.#steps - 1)) / this.#milliseconds;
  }

  /** Feeds tokens of the text that both share. The logits are a copy. */
  async feed(tokens: readonly number[]): Promise<{ readonly rows: LogitRows; readonly next: number; readonly errors: Errors }> {
    const { layers, kvHeads, headDim, vocab } = this.#runner.config;
    const states: (readonly [number, Float32Array, Float32Array])[] = [];
    const begin = performance.now();
    const logits = await feed(this.#runner, this.cache, this.sequence, tokens, async (layer, key, value) => {
      states.push([layer, key.slice(), value.slice()]);
      await this.#pause();
    });
    if (tokens.length === 1 && this.#steps++ > 0) this.#milliseconds += performance.now() - begin;
    const own = logits.slice();

    const errors = { k: new Float32Array(tokens.length * layers * kvHeads), v: new Float32Array(tokens.length * layers * kvHeads) };
    for (const [layer, key, value] of states) {
      const passed = this.#trip.pass(layer, key, value);
      for (const side of ['k', 'v'] as const) {
        const { exact, stored } = passed[side];
        for (let row = 0; row < kvHeads * tokens.length; row++) {
          const [head, token] = [Math.floor(row / tokens.length), row % tokens.length];
          const [from, to] = [row * headDim, (row + 1) * headDim];
          errors[side][(token * layers + layer) * kvHeads + head] = relativeError(exact.subarray(from, to), stored.subarray(from, to));
        }
      }
    }
    return { rows: new LogitRows(own, vocab), next: largest(own.subarray(-vocab)), errors };
  }
}

/** What a cache's text goes on with, and what it was. */
class Speaker {
  #ended = false;

  constructor(
    readonly pieces: Pieces,
    readonly eos: number,
    public next: number,
  ) {
    this.hear(next);
  }

  get ended(): boolean {
    return this.#ended;
  }

  hear(next: number): void {
    this.next = next;
    this.#ended ||= next === this.eos;
  }

  /** The piece of what comes next. */
  say(): string | undefined {
    return this.#ended ? undefined : this.pieces.add(this.next);
  }
}

/** @throws RangeError for a prompt that leaves no room in the model's context */
export async function compare(options: CompareOptions, tell: (event: CompareEvent) => void): Promise<void> {
  const { runner, tokenizer, storages, breathe } = options;
  const { context, layers, kvHeads } = runner.config;
  const prompt = tokenizer.encode(options.prompt);
  const count = Math.min(options.tokens, context - prompt.length);
  if (count < 1) throw new RangeError(`the prompt expected fewer than ${context} tokens, the model's context, got ${prompt.length}`);

  let breathed = performance.now();
  const pause = async (patience = PATIENCE): Promise<void> => {
    if (performance.now() - breathed < patience) return;
    await breathe?.();
    breathed = performance.now();
  };

  const exact = wasmBackend();
  const caches: KvCache[] = [];
  try {
    // The last token that is said goes into no cache. The second one may hold two texts.
    const positions = prompt.length + count - 1;
    const sides = storages.map((storage, i) => {
      const side = new Side(options, storage, exact, (1 + i) * (positions + BLOCK), pause);
      caches.push(side.cache);
      return side;
    }) as unknown as Pair<Side>;
    const opening = new Pieces(tokenizer);
    tell({ type: 'started', layers, kvHeads, prompt: prompt.map((id) => opening.add(id)), positions, bytesPerToken: [sides[0].cache.memory.bytesPerToken, sides[1].cache.memory.bytesPerToken] });

    /** Feeds both the text that they share, and tells how they compare. */
    const store = async (tokens: readonly number[]): Promise<Pair<number>> => {
      const position = sides[0].sequence.length;
      const [first, second] = [await sides[0].feed(tokens), await sides[1].feed(tokens)];
      const kl = tokens.map((_, i) => second.rows.divergenceFrom(first.rows, i));
      const agreed = tokens.filter((_, i) => second.rows.agreesWith(first.rows, i)).length;
      tell({ type: 'stored', position, kl, agreed, errors: [first.errors, second.errors], tokensPerSecond: [sides[0].tokensPerSecond, sides[1].tokensPerSecond] });
      return [first.next, second.next];
    };

    let next: Pair<number> = [NaN, NaN];
    for (let at = 0; at < prompt.length; at += runner.maxTokens) next = await store(prompt.slice(at, at + runner.maxTokens));
    const speakers = next.map((id) => new Speaker(new Pieces(tokenizer, prompt), tokenizer.eos, id)) as unknown as Pair<Speaker>;
    const [first, second] = speakers;
    /** What the second one says by itself, once that differs. */
    let fork: Sequence | undefined;
    for (let n = 0; n < count && !(first.ended && second.ended); n++) {
      if (first.next !== second.next) fork ??= sides[1].sequence.fork();
      tell({ type: 'said', pieces: [first.say(), second.say()], parted: fork !== undefined });
      if (n === count - 1) break;
      if (!first.ended) {
        const [heard, other] = await store([first.next]);
        first.hear(heard);
        if (!fork) second.hear(other);
      }
      if (fork && !second.ended) second.hear(largest(await feed(runner, sides[1].cache, fork, [second.next], () => pause())));
      await pause(0);
    }
  } finally {
    for (const cache of caches) cache.dispose();
    exact.dispose();
  }
}
