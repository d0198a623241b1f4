/** A calibration beside a GPU, which takes keys and values later than the calibration sees them. */
import { throws } from 'uvu/assert';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { assertSameScales, cacheOf, calibrationOf, runSteps } from '../calibrate/attached.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { suite } from '../suite.js';

const test = suite(`attached calibrations, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

test('sees what the model has', async () => {
  const cache = cacheOf(backend);
  const [attached, plain] = [calibrationOf(), calibrationOf()];
  cache.attach(attached);
  await runSteps(cache, plain);
  assertSameScales(attached.scales(), plain.scales());
  cache.dispose();
});

test('steps do not record what it could not see', () => {
  const cache = cacheOf(backend);
  const detach = cache.attach(calibrationOf());
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  const encoder = backend.device.createCommandEncoder();
  const buffer = backend.device.createBuffer({ size: 256, usage: 0x80 });
  throws(() => step.recordAppend(encoder, 0, buffer, buffer), /"recordAppend" expected a cache with nothing attached/);
  throws(() => step.recordAttend(encoder, 0, buffer, { out: buffer }), /"recordAttend" expected a cache with nothing attached/);
  detach();
  step.recordAppend(encoder, 0, buffer, buffer);
  step.abort();
  buffer.destroy();
  cache.dispose();
});
