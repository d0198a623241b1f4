/** WebGPU's flags, by number: browsers have them as globals, Node's package does not. */
export const usage = { mapRead: 0x1, copySrc: 0x4, copyDst: 0x8, uniform: 0x40, storage: 0x80, queryResolve: 0x200 } as const;

export const MAP_READ = 0x1;
export const COMPUTE_STAGE = 0x4;
