import { planAppend } from '../append.js';
import { partsOf, planAttention, type AttendPlan, type WorkPart } from '../attention.js';
import type { AppendCall, AppendStatus, AttendCall, AttendResult, Backend, Pages } from '../backend.js';
import { bytesOf, describe, floatDtypes, formats, type FloatArray, type FloatDtype } from '../formats.js';
import { align16, appendParams, attendParams, attendScratch, checkInteger, PANEL_ROW_BYTES, PANEL_TOKENS, paramWriter, sideParams, WORK_WORDS, type PageLayout, type SideLayout } from '../layout.js';
import { wasmFeatures, type SimdBuild } from './features.js';
import { instantiateKernels, type Kernels } from './kernels.js';
import { Scratch, WasmMemory } from './memory.js';
import { WasmPages } from './pages.js';
import { quantizeRule, type QuantizeRule } from './rule.js';

const appendWriter = paramWriter(appendParams);
const attendWriter = paramWriter(attendParams);
const sideWriter = paramWriter(sideParams);

/** Input bytes that append takes in at a time: what has just been copied is still in the L2 cache when it is quantized. */
const APPEND_CHUNK_BYTES = 65536;
/** Bytes of q, as f32, that one kernel call works on: bounds the working memory of long prefills. */
const ATTEND_CHUNK_BYTES = 2 ** 24;

const sum = (sizes: readonly number[]): number => sizes.reduce((total, bytes) => total + align16(bytes), 0);

/** Carves consecutive 16-byte aligned pieces from an address. */
function carve(address: number): (bytes: number) => number {
  let end = address;
  return (bytes) => (end += align16(bytes)) - align16(bytes);
}

function writeSide(view: DataView, at: number, side: SideLayout, scale: number): void {
  const { codes, headStride, tokenStride, dimStride, scales, scaleHeadStride } = side;
  sideWriter.write(view, at, { format: formats[side.format].id, codes, headStride, tokenStride, dimStride, scales, scaleHeadStride, scale });
}

/** The CPU path: everything at once, synchronously, in WebAssembly SIMD. */
export class WasmBackend implements Backend {
  readonly kind = 'wasm';
  readonly synchronous = true;
  /** The build of the kernels that is used. */
  readonly simd: SimdBuild;
  readonly #memory = new WasmMemory();
  readonly #kernels: Kernels;
  readonly #scratch = new Scratch(this.#memory, 'working memory');

  /** @internal use `wasmBackend` */
  constructor(simd: SimdBuild) {
    this.simd = simd;
    this.#kernels = instantiateKernels(this.#memory, simd);
  }

  createPages(layout: PageLayout, count: number): WasmPages {
    if (this.#memory.closed) throw new TypeError('"backend" expected to be in use, got one that was disposed of');
    checkInteger(count, 'count', 1, Math.floor((2 ** 31 - 1) / layout.blockSize));
    return new WasmPages(this.#memory, layout, count);
  }

  append(call: AppendCall): AppendStatus {
    const pages = this.#own(call.pages);
    const plan = planAppend(call, pages.marks);
    if (plan.status.written > 0) {
      this.#appendSide(pages, pages.layout.k, call.key, plan.slotMapping, plan.dtype, quantizeRule(pages.layout.k, plan.kRecipe, plan.kScale));
      this.#appendSide(pages, pages.layout.v, call.value, plan.slotMapping, plan.dtype, quantizeRule(pages.layout.v, plan.vRecipe, plan.vScale));
    }
    return plan.status;
  }

  /** The pages as ours, or an error. */
  #own(pages: Pages): WasmPages {
    if (pages instanceof WasmPages && pages.memory === this.#memory && pages.address > 0) return pages;
    throw new TypeError('"pages" expected pages that this backend created');
  }

  #appendSide(pages: WasmPages, side: SideLayout, x: FloatArray, slotMapping: Int32Array, inputDtype: FloatDtype, rule: QuantizeRule): void {
    const { layout } = pages;
    const dtype = floatDtypes[inputDtype];
    const tokenBytes = layout.kvHeads * layout.headDim * dtype.bytes;
    const atOnce = Math.max(PANEL_TOKENS, Math.floor(APPEND_CHUNK_BYTES / tokenBytes));
    const tokens = slotMapping.length;
    const place = carve(this.#scratch.reserve(appendWriter.bytes + PANEL_TOKENS * PANEL_ROW_BYTES + Math.min(tokens, atOnce) * (tokenBytes + 4) + 32));
    const params = place(appendWriter.bytes);
    const codes = place(PANEL_TOKENS * PANEL_ROW_BYTES);
    const values = place(Math.min(tokens, atOnce) * tokenBytes);
    const slots = place(Math.min(tokens, atOnce) * 4);
    const { u8, view } = this.#memory;
    const input = bytesOf(x);
    const mapping = bytesOf(slotMapping);
    appendWriter.write(view, params, {
      ...rule,
      x: values,
      dtype: dtype.id,
      dim: layout.headDim,
      codes,
      codesStride: PANEL_ROW_BYTES,
      scales: 0,
      slotMapping: slots,
      kvHeads: layout.kvHeads,
      blockSize: layout.blockSize,
      pages: pages.address,
      pageBytes: layout.bytes,
      codesOffset: side.codes,
      headStride: side.headStride,
      tokenStride: side.tokenStride,
      dimStride: side.dimStride,
      scalesOffset: side.scales,
      scaleHeadStride: side.scaleHeadStride,
    });
    for (let start = 0, n = 0; start < tokens; start += n) {
      n = Math.min(atOnce, tokens - start);
      // A piece ends where a panel does: the rest of one, and its beginning, would be written byte by byte.
      const beyond = (slotMapping[start + n - 1] + 1) & (PANEL_TOKENS - 1);
      if (start + n < tokens && beyond < n) n -= beyond;
      u8.set(input.subarray(start * tokenBytes, (start + n) * tokenBytes), values);
      u8.set(mapping.subarray(start * 4, (start + n) * 4), slots);
      this.#kernels.append(params, n);
    }
  }

  attend(call: AttendCall): AttendResult {
    const pages = this.#own(call.pages);
    const { headDim } = pages.layout;
    const rowsAtOnce = (queryHeads: number): number => Math.max(1, Math.floor(ATTEND_CHUNK_BYTES / (queryHeads * headDim * 4)));
    const plan = planAttention(call, rowsAtOnce);
    const parts = partsOf(plan.work, rowsAtOnce(plan.queryHeads));
    // The largest part comes first here: one that does not fit must fail before any result is written.
    this.#scratch.reserve(sum(this.#sizes(plan, headDim, Math.max(0, ...parts.map(({ rows }) => rows)))));
    const result = {
      out: call.out ?? new Float32Array(plan.totalQ * plan.queryHeads * headDim),
      lse: call.lse ?? new Float32Array(plan.totalQ * plan.queryHeads),
    };
    // A later part must still find its q where an earlier one's result went.
    const inputs = [call.q, plan.blockTable, plan.sinks].map((input) => input?.buffer);
    const apart = parts.length > 1 && (inputs.includes(result.out.buffer) || inputs.includes(result.lse.buffer));
    const { out, lse } = apart ? { out: new Float32Array(result.out.length), lse: new Float32Array(result.lse.length) } : result;
    for (const part of parts) this.#attendPart(call.q, pages, plan, part, out, lse);
    if (apart) {
      result.out.set(out);
      result.lse.set(lse);
    }
    return result;
  }

  /** Bytes of what a part of the work needs in working memory, in the order in which it is laid out. */
  #sizes({ work, queryHeads, blockTable, dtype }: AttendPlan, headDim: number, rows: number): number[] {
    const values = rows * queryHeads * headDim;
    return [
      attendWriter.bytes, sideWriter.bytes, sideWriter.bytes, work.byteLength, values * 4, values * 4, rows * queryHeads * 4,
      blockTable.byteLength, queryHeads * 4, attendScratch.bytes, dtype === 'f32' ? 0 : values * floatDtypes[dtype].bytes,
    ];
  }

  /** Some work items: their rows in, their results out. */
  #attendPart(queries: FloatArray, pages: WasmPages, plan: AttendPlan, part: WorkPart, out: Float32Array, lse: Float32Array): void {
    const { layout } = pages;
    const { k, v, headDim } = layout;
    const rowFloats = plan.queryHeads * headDim;
    const floats = part.rows * rowFloats;
    const sizes = this.#sizes(plan, headDim, part.rows);
    const place = carve(this.#scratch.reserve(sum(sizes)));
    const [params, kAt, vAt, work, q, outAt, lseAt, blockTable, sinks, scratch, narrow] = sizes.map(place);
    const { u8, i32, f32, view } = this.#memory;
    const items = plan.work.subarray(part.first * WORK_WORDS, (part.first + part.items) * WORK_WORDS);
    const firstRow = items[0];
    i32.set(items, work >>> 2);
    // The kernel counts rows from the first that it is given.
    for (let item = 0; item < part.items; item++) i32[(work >>> 2) + item * WORK_WORDS] -= firstRow;
    const widens = plan.dtype !== 'f32';
    u8.set(bytesOf(queries.subarray(firstRow * rowFloats, firstRow * rowFloats + floats)), widens ? narrow : q);
    if (widens) this.#kernels.widen(narrow, floatDtypes[plan.dtype].id, floats, q);
    i32.set(plan.blockTable, blockTable >>> 2);
    if (plan.sinks) f32.set(plan.sinks, sinks >>> 2);
    writeSide(view, kAt, k, plan.kScale);
    writeSide(view, vAt, v, plan.vScale);
    attendWriter.write(view, params, {
      work,
      items: part.items,
      q,
      out: outAt,
      lse: lseAt,
      queryHeads: plan.queryHeads,
      kvHeads: layout.kvHeads,
      dim: headDim,
      blockTable,
      maxBlocks: plan.maxBlocks,
      pages: pages.address,
      pageBytes: layout.bytes,
      blockSize: layout.blockSize,
      k: kAt,
      v: vAt,
      softmaxScale: plan.softmaxScale,
      softcap: plan.softcap,
      causal: plan.causal ? 1 : 0,
      windowLeft: plan.windowLeft,
      windowRight: plan.windowRight,
      sinks: plan.sinks ? sinks : 0,
      scratch,
      units: 0,
      splits: 0,
      partials: 0,
    });
    this.#kernels.attend(params);
    out.set(f32.subarray(outAt >>> 2, (outAt >>> 2) + floats), firstRow * rowFloats);
    lse.set(f32.subarray(lseAt >>> 2, (lseAt >>> 2) + part.rows * plan.queryHeads), firstRow * plan.queryHeads);
  }

  dispose(): void {
    this.#memory.closed = true;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

export interface WasmBackendOptions {
  /**
   * `relaxed` fuses attention's products and sums where the engine has relaxed SIMD: faster, with other last bits.
   * Default: relaxed where there is such a thing, else `baseline`. The bytes in the cache are the same in both.
   */
  readonly simd?: SimdBuild;
}

/**
 * A backend on WebAssembly SIMD, which is everywhere. Owns its memory; give it back with `dispose()`.
 * @throws TypeError for a build that is not known, or that this engine cannot run
 */
export function wasmBackend(options: WasmBackendOptions = {}): WasmBackend {
  const { relaxedSimd } = wasmFeatures();
  const { simd = relaxedSimd ? 'relaxed' : 'baseline' } = options;
  if (simd !== 'baseline' && simd !== 'relaxed') throw new TypeError(`"simd" expected baseline or relaxed, got ${describe(simd)}`);
  if (simd === 'relaxed' && !relaxedSimd) throw new TypeError('"simd" expected baseline on this engine, which has no relaxed SIMD, got relaxed');
  return new WasmBackend(simd);
}
