/** The grids on the tests' adapter, in Node only: Chromium's kernels are the same. */
import type { WebgpuBackend } from '../../src/index.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant, variants } from '../gpu/variants.js';
import { suite } from '../suite.js';
import { testSystems } from './grids.js';

export function testOnGpu(options: { readonly whole: boolean }): void {
  const test = suite(`systems’ grids, ${adapterName}`, { skip: noAdapter });
  let backend: WebgpuBackend;
  test.before(async () => {
    backend = await openVariant(variants.at(-1)!.optionalFeatures);
  });
  test.after(() => backend.dispose());
  testSystems(test, () => backend, options);
}
