/** All f32 values through a GPU's encode: SwiftShader takes a minute or two per format. In Node only, as a page gets the same kernel. */
import { equal } from 'uvu/assert';
import { alignEncode, requestWebgpuBackend } from '../src/index.js';
import { adapterName, gpu, noAdapter } from './gpu/adapter.js';
import { suite } from './suite.js';

const test = suite(`encode on ${adapterName}`, { skip: noAdapter });

for (const format of ['e4m3fn', 'e5m2'] as const) {
  test(`${format}: all 2^32 codes are the CPU's`, async () => {
    const backend = await requestWebgpuBackend({ gpu });
    equal(await alignEncode(backend, format), { ok: true, summary: 'same codes', codes: 0 });
    backend.dispose();
  }, { seconds: 900 });
}
