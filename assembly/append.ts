/**
 * Keys or values of new tokens → their slots in the pages, quantized on the way. Exact.
 *
 * x           (tokens, kvHeads, dim)   f32 | f16 | bf16
 * slotMapping (tokens)                 page · blockSize + place; negative = skip
 */
import { narrowRun, widenRun } from "./codec";
import { quantizeRow, quantizeRowGiven, rowBytes } from "./quantize";
import { AppendParams, FORMAT_F16, FORMAT_F32, QuantizeParams } from "../build/params";

/** The first `tokens` tokens at p.x and p.slotMapping. */
export function append(p: AppendParams, tokens: i32): void {
  const bytes = rowBytes(changetype<QuantizeParams>(p));
  let x = p.x;
  for (let token = 0; token < tokens; token++) {
    const slot = load<i32>(p.slotMapping + (<usize>token << 2));
    if (slot < 0) {
      x += bytes * p.kvHeads;
      continue;
    }
    const block = slot / p.blockSize;
    const place = slot - block * p.blockSize;
    const page = p.pages + <usize>block * p.pageBytes;
    let codes = page + p.codesOffset + <usize>place * p.tokenStride;
    let scale = page + p.scalesOffset + (<usize>place << 2);
    for (let head = 0; head < p.kvHeads; head++) {
      if (p.format == FORMAT_F16) narrowRun(x, p.dtype, p.dim, codes);
      else if (p.format == FORMAT_F32) widenRun(x, p.dtype, p.dim, codes);
      else if (p.scalesOffset == 0) quantizeRowGiven(changetype<QuantizeParams>(p), x, codes);
      else quantizeRow(changetype<QuantizeParams>(p), x, codes, scale);
      x += bytes;
      codes += p.headStride;
      scale += p.scaleHeadStride;
    }
  }
}
