/** Append on WebAssembly: the input goes through working memory in pieces, and is quantized into pages. */
import type { AppendPlan, RequantizePlan } from '../append.js';
import { bytesOf, floatDtypes, type FloatArray, type FloatDtype } from '../formats.js';
import { align16, appendParams, PANEL_ROW_BYTES, PANEL_TOKENS, paramWriter, ROWS_AT_ONCE, type PageLayout, type SideLayout } from '../layout.js';
import type { GivenScales } from '../scale.js';
import { isGiven } from '../policies.js';
import type { Kernels } from './kernels.js';
import { carve, Scratch, type WasmMemory } from './memory.js';
import type { PageBytes } from './pages.js';
import { quantizeRule, type QuantizeRule } from '../rule.js';

const writer = paramWriter(appendParams);

/** Input bytes taken in at a time: what has just been copied is still in the L2 cache when it is quantized. */
const CHUNK_BYTES = 65536;

export class Appender {
  readonly #memory: WasmMemory;
  readonly #kernels: Kernels;
  readonly #scratch: Scratch;

  constructor(memory: WasmMemory, kernels: Kernels) {
    this.#memory = memory;
    this.#kernels = kernels;
    this.#scratch = new Scratch(memory, 'working memory');
  }

  /**
   * What remains to be done for a checked call; the working memory is there.
   * @throws RangeError when it is not to be had
   */
  prepare(pages: PageBytes, key: FloatArray, value: FloatArray, plan: AppendPlan): () => void {
    if (plan.status.written === 0) return () => {};
    const atOnce = this.#reserve(pages.layout, plan, plan.slotMapping.length);
    return () => this.#writeBoth(pages, bytesOf(key), bytesOf(value), plan, plan.slotMapping, atOnce);
  }

  /** The same for tokens that lie in pages: these are looked at when it is done. */
  prepareRequantize(pages: PageBytes, { layout, address }: PageBytes, plan: RequantizePlan): () => void {
    if (plan.status.written === 0) return () => {};
    const { k, v, blockSize } = layout;
    const atOnce = this.#reserve(pages.layout, plan, blockSize);
    const rowsOf = (page: number, side: SideLayout): Uint8Array => {
      const start = address + page * layout.bytes + side.codes;
      return this.#memory.u8.subarray(start, start + blockSize * side.tokenStride);
    };
    return () => {
      for (const [i, page] of plan.fromPages.entries()) {
        this.#writeBoth(pages, rowsOf(page, k), rowsOf(page, v), plan, plan.slotMapping.subarray(i * blockSize, (i + 1) * blockSize), atOnce);
      }
    };
  }

  /** Working memory for so many tokens; gives how many of them are taken in at a time. */
  #reserve({ kvHeads, headDim }: PageLayout, { dtype, kScale, vScale }: AppendPlan, tokens: number): number {
    const tokenBytes = kvHeads * headDim * floatDtypes[dtype].bytes;
    const atOnce = Math.min(tokens, Math.max(PANEL_TOKENS, Math.floor(CHUNK_BYTES / tokenBytes)));
    const scaleBytes = align16(4 * Math.max(kScale.values.length, vScale.values.length));
    this.#scratch.reserve(writer.bytes + (ROWS_AT_ONCE + headDim) * 4 + PANEL_TOKENS * PANEL_ROW_BYTES + scaleBytes + align16(atOnce * tokenBytes) + atOnce * 4);
    return atOnce;
  }

  #writeBoth(pages: PageBytes, key: Uint8Array, value: Uint8Array, { dtype, kRecipe, vRecipe, kScale, vScale }: AppendPlan, slotMapping: Int32Array, atOnce: number): void {
    const { k, v } = pages.layout;
    this.#write(pages, k, key, dtype, slotMapping, atOnce, quantizeRule(k, kRecipe), kScale);
    this.#write(pages, v, value, dtype, slotMapping, atOnce, quantizeRule(v, vRecipe), vScale);
  }

  /** @param input rows of `dtype` */
  #write({ layout, address }: PageBytes, side: SideLayout, input: Uint8Array, dtype: FloatDtype, slotMapping: Int32Array, atOnce: number, rule: QuantizeRule, given: GivenScales): void {
    const { kvHeads, headDim, blockSize } = layout;
    const tokenBytes = kvHeads * headDim * floatDtypes[dtype].bytes;
    const tokens = slotMapping.length;
    const place = carve(this.#scratch.address);
    const params = place(writer.bytes);
    const operands = place((ROWS_AT_ONCE + headDim) * 4);
    const codes = place(PANEL_TOKENS * PANEL_ROW_BYTES);
    const scales = place(given.values.byteLength);
    const values = place(atOnce * tokenBytes);
    const slots = place(atOnce * 4);
    const { u8, i32, f32, view } = this.#memory;
    const isComputed = !isGiven(side.granularity);
    if (!isComputed) f32.set(given.values, scales >>> 2);
    writer.write(view, params, {
      // Named one by one: spreading the rule made 46 KB of garbage in a step of two layers, and took longer than the kernel.
      format: rule.format,
      given: isComputed ? 0 : 1,
      max: rule.max,
      amaxFloor: rule.amaxFloor,
      scaleFloor: rule.scaleFloor,
      scaleIfZero: rule.scaleIfZero,
      quotient: rule.quotient,
      scalePrecision: rule.scalePrecision,
      least: rule.least,
      x: values,
      dtype: floatDtypes[dtype].id,
      dim: headDim,
      groupSize: side.groupSize || headDim,
      codes,
      codesStride: PANEL_ROW_BYTES,
      scales,
      operands,
      slotMapping: slots,
      kvHeads,
      blockSize,
      pages: address,
      pageBytes: layout.bytes,
      codesOffset: side.codes,
      headStride: side.headStride,
      tokenStride: side.tokenStride,
      dimStride: side.dimStride,
      scalesOffset: side.scales,
      scaleHeadStride: isComputed ? side.scaleHeadStride : 4 * given.headStride,
      scaleGroupStride: side.scaleGroupStride,
      perChannel: given.dimStride,
    });
    for (let start = 0, n = 0; start < tokens; start += n) {
      n = Math.min(atOnce, tokens - start);
      // A piece ends where a panel does: the rest of one, and its beginning, would be written byte by byte.
      const beyond = (slotMapping[start + n - 1] + 1) & (PANEL_TOKENS - 1);
      if (start + n < tokens && beyond < n) n -= beyond;
      // Where one piece is all there are no views to make: they took 8 % of the time that one token does.
      u8.set(n === tokens ? input : input.subarray(start * tokenBytes, (start + n) * tokenBytes), values);
      i32.set(n === tokens ? slotMapping : slotMapping.subarray(start, start + n), slots >>> 2);
      this.#kernels.append(params, n);
    }
  }
}
