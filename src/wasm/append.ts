/** Append on WebAssembly: the input goes through working memory in pieces, and is quantized into pages. */
import type { AppendPlan } from '../append.js';
import { bytesOf, floatDtypes, type FloatArray } from '../formats.js';
import { align16, appendParams, PANEL_ROW_BYTES, PANEL_TOKENS, paramWriter, ROWS_AT_ONCE, type SideLayout } from '../layout.js';
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
    const { k, v, kvHeads, headDim } = pages.layout;
    const tokenBytes = kvHeads * headDim * floatDtypes[plan.dtype].bytes;
    const atOnce = Math.min(plan.slotMapping.length, Math.max(PANEL_TOKENS, Math.floor(CHUNK_BYTES / tokenBytes)));
    this.#scratch.reserve(writer.bytes + ROWS_AT_ONCE * 4 + PANEL_TOKENS * PANEL_ROW_BYTES + align16(atOnce * tokenBytes) + atOnce * 4);
    return () => {
      this.#write(pages, k, key, plan, atOnce, quantizeRule(k, plan.kRecipe, plan.kScale.values[0]));
      this.#write(pages, v, value, plan, atOnce, quantizeRule(v, plan.vRecipe, plan.vScale.values[0]));
    };
  }

  #write({ layout, address }: PageBytes, side: SideLayout, x: FloatArray, { slotMapping, dtype }: AppendPlan, atOnce: number, rule: QuantizeRule): void {
    const { kvHeads, headDim, blockSize } = layout;
    const tokenBytes = kvHeads * headDim * floatDtypes[dtype].bytes;
    const tokens = slotMapping.length;
    const place = carve(this.#scratch.address);
    const params = place(writer.bytes);
    const operands = place(ROWS_AT_ONCE * 4);
    const codes = place(PANEL_TOKENS * PANEL_ROW_BYTES);
    const values = place(atOnce * tokenBytes);
    const slots = place(atOnce * 4);
    const { u8, view } = this.#memory;
    const input = bytesOf(x);
    const mapping = bytesOf(slotMapping);
    writer.write(view, params, {
      // Named one by one: spreading the rule made 46 KB of garbage in a step of two layers, and took longer than the kernel.
      format: rule.format,
      givenScale: rule.givenScale,
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
      codes,
      codesStride: PANEL_ROW_BYTES,
      scales: 0,
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
}
