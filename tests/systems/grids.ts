/** All systems' grids on one backend. */
import type { Backend } from '../../src/index.js';
import type { Suite } from '../suite.js';
import { testFerrum } from './ferrum.js';
import { testFlashinfer } from './flashinfer.js';
import { testVllm } from './vllm.js';
import { testXpu } from './xpu.js';

export function testSystems(test: Suite, open: () => Backend, options: { readonly whole: boolean }): void {
  testXpu(test, open, options);
  testVllm(test, open);
  testFlashinfer(test, open);
  testFerrum(test, open);
}
