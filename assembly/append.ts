/**
 * Keys or values of new tokens → their slots in the pages, quantized on the way. Exact.
 *
 * x           (tokens, kvHeads, dim)   f32 | f16 | bf16
 * slotMapping (tokens)                 page · blockSize + place; negative = skip
 */
import { narrowRun, widenRun } from "./codec";
import { scatterRow, transposePanel } from "./panel";
import { quantizeRows, rowBytes } from "./quantize";
import { AppendParams, FORMAT_F16, PANEL_ROW_BYTES, PANEL_TOKENS, QuantizeParams } from "../build/params";

/** Rows to `codes`, their scales to `scales`. */
function appendRows(p: AppendParams, rows: i32, x: usize, xStride: usize, codes: usize, codesStride: usize, scales: usize, scaleStride: usize): void {
  if (p.format < FORMAT_F16) {
    quantizeRows(changetype<QuantizeParams>(p), rows, x, xStride, codes, codesStride, p.scalesOffset == 0 ? 0 : scales, scaleStride);
    return;
  }
  for (let row = 0; row < rows; row++, x += xStride, codes += codesStride) {
    if (p.format == FORMAT_F16) narrowRun(x, p.dtype, p.dim, codes);
    else widenRun(x, p.dtype, p.dim, codes);
  }
}

/** Whether the slots of the next PANEL_TOKENS tokens make up a panel: one after the other, the first a multiple of as many. */
function fillPanel(slots: usize, tokensLeft: i32): bool {
  const first = load<i32>(slots);
  if (tokensLeft < PANEL_TOKENS || (first & (PANEL_TOKENS - 1)) != 0) return false;
  for (let i = 1; i < PANEL_TOKENS; i++) if (load<i32>(slots + (<usize>i << 2)) != first + i) return false;
  return true;
}

/** Head after head: one token, or those of a panel. */
function appendHeads(p: AppendParams, tokens: i32, x: usize, xStride: usize, codes: usize, scales: usize): void {
  for (let head = 0; head < p.kvHeads; head++) {
    if (p.dimStride > p.tokenStride) {
      appendRows(p, tokens, x, xStride, p.codes, PANEL_ROW_BYTES, scales, 4);
      if (tokens == PANEL_TOKENS) transposePanel(p.codes, p.dim, codes, p.dimStride, p.tokenStride);
      else scatterRow(p.codes, p.dim, codes, p.dimStride, p.tokenStride);
    } else {
      appendRows(p, tokens, x, xStride, codes, p.tokenStride, scales, 4);
    }
    x += rowBytes(changetype<QuantizeParams>(p));
    codes += p.headStride;
    scales += p.scaleHeadStride;
  }
}

/** The first `tokens` tokens at p.x and p.slotMapping. */
export function append(p: AppendParams, tokens: i32): void {
  const bytes = rowBytes(changetype<QuantizeParams>(p));
  const tokenBytes = bytes * p.kvHeads;
  const dimMajor = p.dimStride > p.tokenStride;
  const panels = (p.blockSize & (PANEL_TOKENS - 1)) == 0;
  let together = 1;
  for (let token = 0; token < tokens; token += together) {
    const slots = p.slotMapping + (<usize>token << 2);
    const slot = load<i32>(slots);
    together = 1;
    if (slot < 0) continue;
    if (panels && fillPanel(slots, tokens - token)) together = PANEL_TOKENS;
    const block = slot / p.blockSize;
    const place = slot - block * p.blockSize;
    const page = p.pages + <usize>block * p.pageBytes;
    const x = p.x + <usize>token * tokenBytes;
    const codes = page + p.codesOffset + <usize>place * p.tokenStride;
    const scales = page + p.scalesOffset + (<usize>place << 2);
    if (dimMajor || together > 1) appendHeads(p, together, x, tokenBytes, codes, scales);
    else appendRows(p, p.kvHeads, x, bytes, codes, p.headStride, scales, p.scaleHeadStride); // its heads are rows, too
  }
}
