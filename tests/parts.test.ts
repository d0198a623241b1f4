/** Keys in several places, on one thread and on several. */
import { wasmBackend, type Backend } from '../src/index.js';
import { ThreadedBackend } from '../src/wasm/threads/backend.js';
import { testAttendParts, testContextLens } from './attention-parts.js';
import { builds } from './builds.js';
import { testOrders } from './page-orders.js';
import { testRequantize } from './requantize.js';
import { suite } from './suite.js';

testParts('baseline, 1 thread', () => wasmBackend({ simd: builds[0] }));
testParts('relaxed, 1 thread', () => wasmBackend({ simd: builds[1] }));
// No call is too small here.
testParts('baseline, 2 threads', () => new ThreadedBackend(builds[0], 2, 0));

function testParts(name: string, open: () => Backend): void {
  const test = suite(`parts, ${name}`);
  const backend = open();
  test.after(() => backend.dispose());

  testContextLens(test, () => backend);
  testAttendParts(test, () => backend);
  testOrders(test, () => backend);
  testRequantize(test, () => backend);
}
