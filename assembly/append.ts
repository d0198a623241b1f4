/**
 * Keys or values of new tokens → their slots in the pages, quantized on the way. Exact.
 *
 * x           (tokens, kvHeads, dim)   f32 | f16 | bf16
 * slotMapping (tokens)                 page · blockSize + place; negative = skip
 */
import { narrowRun, widenRun } from "./codec";
import { scatterRow, transposePanel } from "./panel";
import { inputBytes, quantizeChannels, quantizeRows } from "./quantize";
import { AppendParams, FORMAT_F16, PANEL_ROW_BYTES, PANEL_TOKENS, QuantizeParams } from "../build/params";

/** Rows to `codes`, group by group, and their scales to `scales`, or from there where they are given. */
function appendRows(p: AppendParams, rows: i32, x: usize, xStride: usize, codes: usize, codesStride: usize, scales: usize, scaleStride: usize): void {
  const q = changetype<QuantizeParams>(p);
  if (p.format >= FORMAT_F16) {
    for (let row = 0; row < rows; row++, x += xStride, codes += codesStride) {
      if (p.format == FORMAT_F16) narrowRun(x, p.dtype, p.dim, codes);
      else widenRun(x, p.dtype, p.dim, codes);
    }
    return;
  }
  const end = codes + p.dim;
  do {
    quantizeRows(q, rows, x, xStride, codes, codesStride, scales, scaleStride);
    x += inputBytes(q, p.groupSize);
    codes += p.groupSize;
    scales += p.scaleGroupStride;
  } while (codes < end);
}

/** Whether the slots of the next PANEL_TOKENS tokens make up a panel: one after the other, the first a multiple of as many. */
function fillPanel(slots: usize, tokensLeft: i32): bool {
  const first = load<i32>(slots);
  if (tokensLeft < PANEL_TOKENS || (first & (PANEL_TOKENS - 1)) != 0) return false;
  for (let i = 1; i < PANEL_TOKENS; i++) if (load<i32>(slots + (<usize>i << 2)) != first + i) return false;
  return true;
}

@inline
function isDimMajor(p: AppendParams): bool {
  return p.dimStride > p.tokenStride;
}

/** Whether groups end amid 16 bytes: the last one's codes then are followed by 8 zeros, for which a page has no room. */
@inline
function endsAmid(p: AppendParams): bool {
  return p.groupSize < p.dim && (p.groupSize & 8) != 0;
}

/** Head after head: one token, or those of a panel. Rows that cannot be written where they belong first go to p.codes. */
function appendHeads(p: AppendParams, tokens: i32, x: usize, xStride: usize, codes: usize, scales: usize): void {
  const apart = isDimMajor(p) || endsAmid(p);
  const tokenStride: usize = p.given != 0 ? 0 : 4;
  // What lies next to a row is the same head's, or in order NHD the same token's.
  const rowBytes: usize = min(p.tokenStride, p.headStride);
  for (let head = 0; head < p.kvHeads; head++) {
    const rows = apart ? p.codes : codes;
    const rowsStride: usize = apart ? PANEL_ROW_BYTES : p.tokenStride;
    if (p.perChannel != 0) quantizeChannels(changetype<QuantizeParams>(p), tokens, x, xStride, rows, rowsStride, scales);
    else appendRows(p, tokens, x, xStride, rows, rowsStride, scales, tokenStride);
    if (!apart) {
      // They are there.
    } else if (!isDimMajor(p)) {
      for (let token = 0; token < tokens; token++) memory.copy(codes + <usize>(token * p.tokenStride), rows + <usize>token * PANEL_ROW_BYTES, rowBytes);
    } else if (tokens == PANEL_TOKENS) {
      transposePanel(rows, p.dim, codes, p.dimStride, p.tokenStride);
    } else {
      scatterRow(rows, p.dim, codes, p.dimStride, p.tokenStride);
    }
    x += inputBytes(changetype<QuantizeParams>(p), p.dim);
    codes += p.headStride;
    scales += p.scaleHeadStride;
  }
}

/** The first `tokens` tokens at p.x and p.slotMapping. */
export function append(p: AppendParams, tokens: i32): void {
  const bytes = inputBytes(changetype<QuantizeParams>(p), p.dim);
  const tokenBytes = bytes * p.kvHeads;
  const byHeads = isDimMajor(p) || endsAmid(p) || p.perChannel != 0;
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
    const scales = p.given != 0 ? p.scales : page + p.scalesOffset + (<usize>place << 2);
    if (byHeads || together > 1) appendHeads(p, together, x, tokenBytes, codes, scales);
    else appendRows(p, p.kvHeads, x, bytes, codes, p.headStride, scales, p.scaleHeadStride); // its heads are rows, too
  }
}
