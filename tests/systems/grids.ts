/** All systems' grids on one backend. */
import type { Backend } from '../../src/index.js';
import type { Suite } from '../suite.js';
import { testFerrum } from './ferrum.js';
import { testFlashinfer } from './flashinfer.js';
import { testVllm } from './vllm.js';
import { testXpu } from './xpu.js';

export function testSystems(suite: Suite, open: () => Backend, options: { readonly whole: boolean }): void {
  // SwiftShader needs most of a minute for some, and more where others keep its cores busy.
  const test: Suite = Object.assign((name: string, body: () => void | Promise<void>) => suite(name, body, { seconds: 300 }), { before: suite.before, after: suite.after });
  testXpu(test, open, options);
  testVllm(test, open);
  testFlashinfer(test, open);
  testFerrum(test, open);
}
