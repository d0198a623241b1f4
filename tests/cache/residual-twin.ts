/** A cache with a residual beside a plain model of it: lists of tokens, and slow float64. */
import { is, ok } from 'uvu/assert';
import { decode, KvCache, quantize, type AttendResult, type Backend, type KvCacheOptions, type NhdTensors, type PageLayout, type Pages, type Sequence, type Step } from '../../src/index.js';
import type { ResidualRule } from '../../src/cache/residual.js';
import { ATTENTION_BOUND, attentionError } from '../../src/files/compare.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { referenceAttention } from '../reference/attention.js';
import { definitions, halfOf, valueOf } from '../reference/codec.js';
import { PlainResidual } from './plain-residual.js';

export const shape = { queryHeads: 4, kvHeads: 2, headDim: 16 } as const;
const { queryHeads, kvHeads, headDim } = shape;
export const [kvFloats, qFloats] = [kvHeads * headDim, queryHeads * headDim];

type StoredFormat = 'e4m3fn' | 'int8' | 'f32';
/** Keys and values of the two layers, where none is skipped. */
const formats: readonly (readonly [StoredFormat, StoredFormat])[] = [['e4m3fn', 'int8'], ['int8', 'e4m3fn']];
const sides = ['k', 'v'] as const;

/** What is fixed where a twin's options do not say otherwise. */
export interface TwinOptions extends Partial<KvCacheOptions> {
  readonly residual: number;
  readonly residualRule: ResidualRule;
  readonly capacity: number;
}

/** Keys or values of a token, [kvHeads, headDim]. */
interface PlainSide {
  readonly given: Float32Array;
  readonly codes: Uint8Array | Int8Array | Float32Array;
  /** [kvHeads] */
  readonly scales: Float32Array;
  readonly values: Float32Array;
}

type PlainToken = { readonly [side in 'k' | 'v']: PlainSide };

function plainSide(given: Float32Array, format: StoredFormat): PlainSide {
  if (format === 'f32') return { given, codes: given, scales: new Float32Array(kvHeads).fill(1), values: given };
  const { codes, scales } = format === 'int8' ? quantize(given, { format, rowLength: headDim }) : quantize(given, { format, rowLength: headDim });
  const decoded = codes instanceof Int8Array ? Float32Array.from(codes) : decode(codes, format);
  return { given, codes, scales, values: decoded.map((value, i) => value * scales[Math.floor(i / headDim)]) };
}

/** A sequence, and what it is to be. */
export interface Plain {
  readonly sequence: Sequence;
  readonly rule: PlainResidual;
  /** By layer. */
  tokens: readonly (readonly PlainToken[])[];
}

const joined = (parts: readonly Float32Array[]): Float32Array => Float32Array.from(parts.flatMap((part) => [...part]));

/** How a step's appends and attention are made: other than by typed arrays, a GPU's can be recorded. */
export type Advance = (step: Step, layer: number, key: Float32Array, value: Float32Array, q: Float32Array) => AttendResult | Promise<AttendResult>;

const byArrays: Advance = (step, layer, key, value, q) => {
  const status = step.append(layer, key, value);
  return status instanceof Promise ? status.then(() => step.attend(layer, q)) : step.attend(layer, q);
};

export class Twin {
  readonly cache: KvCache;
  /** What the cache's pages are, in the order in which it made them: codes of its layers, then their residuals. */
  readonly made: Pages[] = [];
  readonly #numbers;
  readonly #window: number;
  readonly #sinkTokens: number;

  constructor(backend: Backend, readonly options: TwinOptions, seed = 1) {
    this.#numbers = random(seed);
    this.#window = options.slidingWindow ?? (options.windowLeft === undefined ? Infinity : options.windowLeft + 1);
    this.#sinkTokens = options.sinkTokens ?? 0;
    const create = backend.createPages.bind(backend);
    backend.createPages = (layout: PageLayout, count: number) => {
      const pages = create(layout, count);
      this.made.push(pages);
      return pages;
    };
    this.cache = new KvCache(backend, { ...shape, layers: [{ dtype: { k: 'e4m3fn', v: 'int8' } }, { dtype: options.skipLayers ? undefined : { k: 'int8', v: 'e4m3fn' } }], blockSize: options.layout === 'contiguous' ? undefined : 4, ...options });
    backend.createPages = create;
  }

  create(): Plain {
    const { residual, residualRule, layout } = this.options;
    return { sequence: this.cache.createSequence(), rule: new PlainResidual(residualRule, residual, layout === 'contiguous' ? 16 : 4, this.#sinkTokens), tokens: [[], []] };
  }

  fork({ sequence, rule, tokens }: Plain): Plain {
    return { sequence: sequence.fork(), rule: rule.copy(), tokens };
  }

  truncate(plain: Plain, length: number): void {
    plain.sequence.truncate(length);
    plain.rule.truncate(length);
    plain.tokens = plain.tokens.map((tokens) => tokens.slice(0, length));
  }

  #formats(layer: number): readonly [StoredFormat, StoredFormat] {
    return layer === 1 && this.options.skipLayers ? ['f32', 'f32'] : formats[layer];
  }

  /** Values that f16 has where the residual keeps f16: what it rounds is not what is tried. */
  #given(): Float32Array {
    const x = this.#numbers.normals(kvFloats);
    return this.options.residualDtype === 'f16' ? x.map((value) => valueOf(halfOf(value), definitions.f16)) : x;
  }

  #tokens(layer: number, count: number): PlainToken[] {
    const [k, v] = this.#formats(layer);
    return Array.from({ length: count }, () => ({ k: plainSide(this.#given(), k), v: plainSide(this.#given(), v) }));
  }

  /** A step that writes into some layers, and is off then. */
  async abort(entries: readonly (readonly [Plain, number])[], layers: number): Promise<void> {
    const step = this.cache.begin(entries.map(([{ sequence }, tokens]) => ({ sequence, tokens })));
    const all = step.tokens;
    for (let layer = 0; layer < layers; layer++) await step.append(layer, this.#numbers.normals(all * kvFloats), this.#numbers.normals(all * kvFloats));
    step.abort();
  }

  /** A committed step, each row of whose attention is near float64. */
  async step(entries: readonly (readonly [Plain, number])[], what: string, advance: Advance = byArrays): Promise<AttendResult[]> {
    const step = this.cache.begin(entries.map(([{ sequence }, tokens]) => ({ sequence, tokens })));
    const added = entries.map(([, tokens]) => [0, 1].map((layer) => this.#tokens(layer, tokens)));
    for (const [i, [plain, tokens]] of entries.entries()) {
      if (tokens > 0) plain.rule.add(tokens);
      plain.tokens = plain.tokens.map((before, layer) => [...before, ...added[i][layer]]);
    }
    const results: AttendResult[] = [];
    for (const layer of [0, 1]) {
      const q = this.#numbers.normals(step.tokens * qFloats);
      const given = (side: 'k' | 'v') => joined(added.flatMap((layers) => layers[layer].map((token) => token[side].given)));
      const result = await advance(step, layer, given('k'), given('v'), q);
      this.#assertAttention(entries, layer, q, result, `${what}, layer ${layer}`);
      results.push(result);
    }
    step.commit();
    return results;
  }

  #assertAttention(entries: readonly (readonly [Plain, number])[], layer: number, q: Float32Array, actual: AttendResult, what: string): void {
    const expected = { out: new Float32Array(q.length), lse: new Float32Array(q.length / headDim) };
    let row = 0;
    for (const [{ rule, tokens }, count] of entries) {
      const read = (side: 'k' | 'v', t: number) => (t < rule.read ? tokens[layer][t][side].values : tokens[layer][t][side].given);
      for (let position = rule.length - count; position < rule.length; position++, row++) {
        const visible = Array.from({ length: position + 1 }, (_, t) => t).filter((t) => t < this.#sinkTokens || t > position - this.#window);
        const [keys, values] = sides.map((side) => visible.map((t) => read(side, t)));
        const { out, lse } = referenceAttention({
          q: q.subarray(row * qFloats, (row + 1) * qFloats), queryHeads, kvHeads, headDim, kvLen: visible.length, causal: false,
          key: (j, head, d) => keys[j][head * headDim + d],
          value: (j, head, d) => values[j][head * headDim + d],
        });
        expected.out.set(out, row * qFloats);
        expected.lse.set(lse, row * queryHeads);
      }
    }
    const error = attentionError(actual, expected, headDim);
    ok(error.out <= ATTENTION_BOUND && error.lse <= ATTENTION_BOUND, `${what}: out ${error.out}, lse ${error.lse}`);
  }

  /** What is where: which tokens are quantized, their codes and scales, and those that are not, as they came. */
  async assertContents(plains: readonly Plain[], what: string): Promise<void> {
    const exported: NhdTensors[] = [];
    for (const pages of this.made) exported.push(await pages.export());
    for (const [index, plain] of plains.entries()) for (const layer of [0, 1]) this.#assertLayer(plain, layer, exported, `${what}, sequence ${index}, layer ${layer}`);
  }

  #assertLayer({ sequence, rule, tokens }: Plain, layer: number, exported: readonly NhdTensors[], what: string): void {
    const { groups } = this.cache;
    const { held, length } = sequence.state;
    const isSkipped = this.#formats(layer)[0] === 'f32';
    const codes = groups.findIndex(({ kind, late }) => kind !== 'residual' && late !== isSkipped);
    is(length, rule.length, what);
    const quantized = isSkipped ? length : rule.read;
    is(held[codes].end, quantized, what);
    const slotsOf = (group: number, from: number, to: number): (readonly [token: number, slot: number])[] =>
      Array.from({ length: to - from }, (_, i) => [from + i, groups[group].slotOf(held[group], from + i)] as const).filter(([, slot]) => slot >= 0);
    const stored = exported[layer];
    for (const [t, slot] of slotsOf(codes, 0, quantized)) {
      const { k, v } = tokens[layer][t];
      for (const [side, cached, scales] of [[k, stored.keyCache, stored.keyScale], [v, stored.valueCache, stored.valueScale]] as const) {
        assertSameBits(cached.slice(slot * kvFloats, (slot + 1) * kvFloats), side.codes, `${what}, codes of token ${t}`);
        if (scales) assertSameBits(scales.slice(slot * kvHeads, (slot + 1) * kvHeads), side.scales, `${what}, scales of token ${t}`);
      }
    }
    if (isSkipped) return;
    const residual = groups.findIndex(({ kind }) => kind === 'residual');
    is(held[residual].floor, quantized, what);
    is(held[residual].end, length, what);
    const recent = exported[2 + layer];
    for (const [t, slot] of slotsOf(residual, quantized, length)) {
      const { k, v } = tokens[layer][t];
      for (const [side, cached] of [[k, recent.keyCache], [v, recent.valueCache]] as const) {
        const expected = this.options.residualDtype === 'f16' ? Uint16Array.from(side.given, halfOf) : side.given;
        assertSameBits(cached.slice(slot * kvFloats, (slot + 1) * kvFloats), expected, `${what}, token ${t} as it came`);
      }
    }
  }
}
