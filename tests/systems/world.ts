/** A model's keys and values for some sequences, in caches of any shape, and float64 attention over what those hold. */
import { ok } from 'uvu/assert';
import { encode, decode, pageLayout, type AttendCall, type AttendResult, type AttentionOptions, type Backend, type Format, type PageLayout, type Pages } from '../../src/index.js';
import { ATTENTION_BOUND, attentionError } from '../../src/files/compare.js';
import { poison, shuffled } from '../fixture.js';
import { halfOf } from '../reference/codec.js';
import type { Random } from '../random.js';

/** What grids call the cache's dtype: `none` is that of 16-bit queries. */
export type CacheDtype = 'e4m3fn' | 'e5m2' | 'none';

export const formatOf = (dtype: CacheDtype): Format => (dtype === 'none' ? 'f16' : dtype);

export interface WorldOptions {
  readonly kvHeads: number;
  readonly queryHeads: number;
  readonly headDim: number;
  /** New tokens and keys of each sequence. */
  readonly lengths: readonly (readonly [q: number, kv: number])[];
  readonly dtype: CacheDtype;
  /** The given scale is the largest magnitude through this. */
  readonly scaleDivisor: number;
}

/** Normal numbers that f16 and bf16 both have, so that one reference serves queries of both dtypes. */
function halfNumbers(random: Random, length: number): Float32Array {
  const values = random.normals(length);
  const bits = new Uint32Array(values.buffer);
  for (let i = 0; i < length; i++) {
    bits[i] &= 0xffff0000;
    if (Math.abs(values[i]) < 2 ** -14) values[i] = 0;
  }
  return values;
}

/** f32 values that are f16, or bf16, as its bits. */
export function narrow(values: Float32Array, dtype: 'f16' | 'bf16'): Uint16Array {
  if (dtype === 'f16') return Uint16Array.from(values, halfOf);
  return Uint16Array.from(new Uint32Array(values.buffer, values.byteOffset, values.length), (word) => word >>> 16);
}

interface Side {
  readonly values: Float32Array;
  /** What the cache is to hold, without the scale. */
  readonly numbers: Float32Array;
  readonly scale: number;
}

/** What a cache of a format is to hold of f16 numbers, as numbers without the scale. */
function stored(format: Format, values: Float32Array, scale: number): Float32Array {
  if (format === 'f16') return values;
  return decode(encode(values.map((x) => x / scale), format as 'e4m3fn'), format as 'e4m3fn');
}

/** Pages that hold a world, and how to find them. */
export interface Placed {
  readonly layout: PageLayout;
  readonly pages: Pages;
  /** Absent: each sequence has the page of its number. */
  readonly blockTable: Int32Array | undefined;
}

/** Computed in float64. */
interface Answer {
  readonly out: Float32Array;
  readonly lse: Float32Array;
}

export class World {
  readonly k: Side;
  readonly v: Side;
  readonly q: Float32Array;
  readonly #halves: { readonly f16: Uint16Array; readonly bf16: Uint16Array };
  readonly cuSeqlensQ: Int32Array;
  readonly seqUsedK: Int32Array;
  readonly #format: Format;

  constructor(
    random: Random,
    readonly options: WorldOptions,
  ) {
    const { kvHeads, queryHeads, headDim, lengths, dtype, scaleDivisor } = options;
    this.#format = formatOf(dtype);
    const tokens = lengths.reduce((sum, [, kv]) => sum + kv, 0);
    const rows = lengths.reduce((sum, [q]) => sum + q, 0);
    const side = (): Side => {
      const values = halfNumbers(random, tokens * kvHeads * headDim);
      const scale = dtype === 'none' ? 1 : Math.fround(values.reduce((most, x) => Math.max(most, Math.abs(x)), 0) / scaleDivisor);
      return { values, scale, numbers: stored(this.#format, values, scale) };
    };
    this.k = side();
    this.v = side();
    this.q = halfNumbers(random, rows * queryHeads * headDim);
    this.#halves = { f16: narrow(this.q, 'f16'), bf16: narrow(this.q, 'bf16') };
    this.cuSeqlensQ = new Int32Array(lengths.length + 1);
    for (const [s, [q]] of lengths.entries()) this.cuSeqlensQ[s + 1] = this.cuSeqlensQ[s] + q;
    this.seqUsedK = Int32Array.from(lengths, ([, kv]) => kv);
  }

  /** All tokens appended: to shuffled pages of `blockSize` tokens, or to one page for each sequence. Other slots are poisoned. */
  async place(backend: Backend, random: Random, blockSize: number | 'contiguous'): Promise<Placed> {
    const { kvHeads, headDim, lengths } = this.options;
    const size = blockSize === 'contiguous' ? Math.max(...lengths.map(([, kv]) => kv)) : blockSize;
    const side = { dtype: this.#format, granularity: 'tensor' } as const;
    const layout = pageLayout({ kvHeads, headDim, blockSize: size, k: side, v: side });
    const blocks = lengths.map(([, kv]) => Math.ceil(kv / size));
    const count = blocks.reduce((sum, n) => sum + n, 0);
    const pages = backend.createPages(layout, count);
    await pages.import(poison(layout, count));
    const order = blockSize === 'contiguous' ? Array.from({ length: count }, (_, i) => i) : shuffled(count, random);
    const maxBlocks = Math.max(...blocks);
    const blockTable = new Int32Array(lengths.length * maxBlocks).fill(-1);
    const slots: number[] = [];
    for (const [s, [, kv]] of lengths.entries()) {
      for (let block = 0; block < blocks[s]; block++) blockTable[s * maxBlocks + block] = order.shift()!;
      for (let j = 0; j < kv; j++) slots.push(blockTable[s * maxBlocks + Math.floor(j / size)] * size + (j % size));
    }
    const [kScale, vScale] = this.#format === 'f16' ? [undefined, undefined] : [this.k.scale, this.v.scale];
    await backend.append({ pages, key: this.k.values, value: this.v.values, slotMapping: Int32Array.from(slots), kScale, vScale });
    return { layout, pages, blockTable: blockSize === 'contiguous' ? undefined : blockTable };
  }

  call({ pages, blockTable }: Placed, qDtype: 'f32' | 'f16' | 'bf16' = 'f32'): AttendCall {
    const q = qDtype === 'f32' ? this.q : this.#halves[qDtype];
    const scales = this.#format === 'f16' ? {} : { kScale: this.k.scale, vScale: this.v.scale };
    return { pages, blockTable, q, dtype: qDtype, cuSeqlensQ: this.cuSeqlensQ, seqUsedK: this.seqUsedK, ...scales };
  }

  /** Float64 attention over what the caches hold; sinks are added by {@link withSinks}. */
  answer(attention: AttentionOptions): Answer {
    const { queryHeads, headDim, lengths } = this.options;
    const rows = this.cuSeqlensQ[lengths.length];
    const answer = { out: new Float32Array(rows * queryHeads * headDim), lse: new Float32Array(rows * queryHeads) };
    let firstKey = 0;
    for (const [s, [rowsHere, kv]] of lengths.entries()) {
      for (let i = 0; i < rowsHere; i++) this.#answerRow(attention, this.cuSeqlensQ[s] + i, kv - rowsHere + i, firstKey, kv, answer);
      firstKey += kv;
    }
    return answer;
  }

  #answerRow({ causal = true, windowLeft = -1, windowRight = -1, softcap = 0, alibiSlopes, softmaxScale }: AttentionOptions, row: number, position: number, firstKey: number, kv: number, { out, lse }: Answer): void {
    const { kvHeads, queryHeads, headDim } = this.options;
    const scale = (softmaxScale ?? 1 / Math.sqrt(headDim)) * this.k.scale;
    const first = windowLeft < 0 ? 0 : Math.max(0, position - windowLeft);
    const end = Math.min(kv, causal ? position + 1 : kv, windowRight < 0 ? kv : position + windowRight + 1);
    const scores = new Float64Array(Math.max(0, end - first));
    const values = new Float64Array(headDim);
    for (let h = 0; h < queryHeads; h++) {
      const head = Math.floor(h / (queryHeads / kvHeads));
      const at = row * queryHeads + h;
      if (end <= first) {
        lse[at] = -Infinity;
        continue;
      }
      let largest = -Infinity;
      for (let j = first; j < end; j++) {
        const key = ((firstKey + j) * kvHeads + head) * headDim;
        let dot = 0;
        for (let d = 0; d < headDim; d++) dot += this.q[at * headDim + d] * this.k.numbers[key + d];
        let s = dot * scale + (alibiSlopes ? alibiSlopes[h] * (j - position) : 0);
        if (softcap > 0) s = softcap * Math.tanh(s / softcap);
        scores[j - first] = s;
        largest = Math.max(largest, s);
      }
      let sum = 0;
      values.fill(0);
      for (let j = first; j < end; j++) {
        const weight = Math.exp(scores[j - first] - largest);
        sum += weight;
        const value = ((firstKey + j) * kvHeads + head) * headDim;
        for (let d = 0; d < headDim; d++) values[d] += weight * this.v.numbers[value + d];
      }
      for (let d = 0; d < headDim; d++) out[at * headDim + d] = (values[d] * this.v.scale) / sum;
      lse[at] = largest + Math.log(sum);
    }
  }

  /** An answer with sinks, which join the denominator only. */
  withSinks({ out, lse }: Answer, sinks: Float32Array): Answer {
    const { headDim, queryHeads } = this.options;
    const joined = lse.map((value, i) => {
      const sink = sinks[i % queryHeads];
      const largest = Math.max(value, sink);
      return largest + Math.log(Math.exp(value - largest) + Math.exp(sink - largest));
    });
    return { out: out.map((value, i) => value * Math.exp(lse[Math.floor(i / headDim)] - joined[Math.floor(i / headDim)])), lse: joined };
  }

  /** @throws Error unless the result is the answer, within the bound */
  check(actual: AttendResult, answer: Answer, what: string, bound = ATTENTION_BOUND): void {
    const error = attentionError(actual, answer, this.options.headDim);
    ok(error.out <= bound && error.lse <= bound, `${what}: out ${error.out}, lse ${error.lse}`);
  }
}
