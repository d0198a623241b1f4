/** `fp8-kv/oracle`: what a kernel made, against what it ought to have made, and by which known dialect it differs. */
export { checkCodes, type CheckCodesCall, type CodesCheck } from './check-codes.js';
export type { CodeCheck, CodeMismatch } from './check.js';
export { type Dialect } from './dialects.js';
export { dialects, type Explanation } from './explain.js';
export { checkCase } from './check-case.js';
export type { AppendCheck, SideCheck } from './check-append.js';
export type { AttendCheck } from './check-attend.js';
export { generateAppendCase, generateAttendCase } from './generate.js';
export type { GenerateOptions } from './inputs.js';
export { generateCodes, type GenerateCodesOptions } from './generate-codes.js';
