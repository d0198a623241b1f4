/** Every combination of the grids; `npm test` takes a sixteenth of the largest on the GPU. */
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant, variants } from '../gpu/variants.js';
import { suite } from '../suite.js';
import type { WebgpuBackend } from '../../src/index.js';
import { testSystems } from './grids.js';

const test = suite(`systems’ grids, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant(variants.at(-1)!.optionalFeatures);
});
test.after(() => backend.dispose());
testSystems(test, () => backend, { whole: true });
