/** The kernel's working memory (src/layout.ts), as bytes and addresses. */
import { AttendParams, ROW_FLOATS } from "../../build/params";

/** From one row of queries, scores or sums to the next. */
@inline
export const ROW_BYTES: usize = ROW_FLOATS << 2;

/** A part of the working memory, by one of the SCRATCH constants. */
@inline
export function scratch(p: AttendParams, part: i32): usize {
  return p.scratch + part;
}
