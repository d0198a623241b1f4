/** Both builds of the kernels, for tests and benches that must hold on each. */
import { setFlagsFromString } from 'node:v8';
import { wasmFeatures, type SimdBuild } from '../src/wasm/features.js';

// Node 20 has relaxed SIMD behind a flag; from 22 on it is there.
if (!wasmFeatures().relaxedSimd) setFlagsFromString('--experimental-wasm-relaxed-simd');

export const builds: readonly SimdBuild[] = ['baseline', 'relaxed'];
