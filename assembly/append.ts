/**
 * Keys or values of new tokens → their slots in the pages, quantized on the way. Exact.
 *
 * x           (tokens, kvHeads, dim)   f32 | f16 | bf16
 * slotMapping (tokens)                 page · blockSize + place; negative = skip
 */
import { narrowRun, widenRun } from "./codec";
import { scatterRow, transposePanel } from "./panel";
import { quantizeRow, quantizeRowGiven, rowBytes } from "./quantize";
import { AppendParams, FORMAT_F16, FORMAT_F32, PANEL_ROW_BYTES, PANEL_TOKENS, QuantizeParams } from "../build/params";

/** One row to `codes`, its scale to `scale`. */
function appendRow(p: AppendParams, x: usize, codes: usize, scale: usize): void {
  if (p.format == FORMAT_F16) narrowRun(x, p.dtype, p.dim, codes);
  else if (p.format == FORMAT_F32) widenRun(x, p.dtype, p.dim, codes);
  else if (p.scalesOffset == 0) quantizeRowGiven(changetype<QuantizeParams>(p), x, codes);
  else quantizeRow(changetype<QuantizeParams>(p), x, codes, scale);
}

/** Whether the slots of the next PANEL_TOKENS tokens make up a panel: one after the other, the first a multiple of as many. */
function fillPanel(slots: usize, tokensLeft: i32): bool {
  const first = load<i32>(slots);
  if (tokensLeft < PANEL_TOKENS || (first & (PANEL_TOKENS - 1)) != 0) return false;
  for (let i = 1; i < PANEL_TOKENS; i++) if (load<i32>(slots + (<usize>i << 2)) != first + i) return false;
  return true;
}

/** The first `tokens` tokens at p.x and p.slotMapping. */
export function append(p: AppendParams, tokens: i32): void {
  const bytes = rowBytes(changetype<QuantizeParams>(p));
  const tokenBytes = bytes * p.kvHeads;
  const dimMajor = p.dimStride > p.tokenStride;
  let together = 1;
  for (let token = 0; token < tokens; token += together) {
    const slots = p.slotMapping + (<usize>token << 2);
    const slot = load<i32>(slots);
    together = 1;
    if (slot < 0) continue;
    if (dimMajor && fillPanel(slots, tokens - token)) together = PANEL_TOKENS;
    const block = slot / p.blockSize;
    const place = slot - block * p.blockSize;
    const page = p.pages + <usize>block * p.pageBytes;
    let x = p.x + <usize>token * tokenBytes;
    let codes = page + p.codesOffset + <usize>place * p.tokenStride;
    let scale = page + p.scalesOffset + (<usize>place << 2);
    for (let head = 0; head < p.kvHeads; head++) {
      if (dimMajor) {
        for (let i: usize = 0; i < <usize>together; i++) appendRow(p, x + i * tokenBytes, p.codes + i * PANEL_ROW_BYTES, scale + (i << 2));
        if (together == PANEL_TOKENS) transposePanel(p.codes, p.dim, codes, p.dimStride, p.tokenStride);
        else scatterRow(p.codes, p.dim, codes, p.dimStride, p.tokenStride);
      } else {
        appendRow(p, x, codes, scale);
      }
      x += bytes;
      codes += p.headStride;
      scale += p.scaleHeadStride;
    }
  }
}
