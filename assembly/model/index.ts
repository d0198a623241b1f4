/** What the module exports. All arrays are f32, row-major, in the imported memory; src/model/llama.ts lays it out. */
export { matmul } from "./matmul";
export { add, rmsnorm, rope, siluMul } from "./rows";
