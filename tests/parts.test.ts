/** Keys in several places, on one thread and on several. */
import { wasmBackend, type Backend } from '../src/index.js';
import { ThreadedBackend } from '../src/wasm/threads/backend.js';
import { testContextLens } from './attention-parts.js';
import { builds } from './builds.js';
import { suite } from './suite.js';

testParts('1 thread', () => wasmBackend({ simd: builds[0] }));
// No call is too small here.
testParts('2 threads', () => new ThreadedBackend(builds[0], 2, 0));

function testParts(name: string, open: () => Backend): void {
  const test = suite(`parts, ${name}`);
  const backend = open();
  test.after(() => backend.dispose());

  testContextLens(test, () => backend);
}
