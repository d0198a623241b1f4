/** `fp8-kv/oracle`: what a kernel made, against what it ought to have made, and by which known dialect it differs. */
export { checkCodes, type CheckCodesCall } from './check-codes.js';
export type { CodeCheck, CodeMismatch } from './check.js';
export { type Dialect } from './dialects.js';
export { dialects, type Explanation } from './explain.js';
export { checkCase } from './check-case.js';
export type { AppendCheck, SideCheck } from './check-append.js';
export type { AttendCheck } from './check-attend.js';
export { generateAppendCase, generateAttendCase, type GenerateOptions } from './generate.js';
