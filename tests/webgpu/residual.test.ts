/** Residuals on a GPU: near float64 and the same bytes as the model, by typed arrays and recorded. */
import { ok } from 'uvu/assert';
import { attentionError } from '../../src/files/compare.js';
import { usage } from '../../src/webgpu/constants.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { shape, Twin, type Advance, type TwinOptions } from '../cache/residual-twin.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { openVariant } from '../gpu/variants.js';
import { suite } from '../suite.js';

const test = suite(`residual, ${adapterName}`, { skip: noAdapter });
let backend: WebgpuBackend;
test.before(async () => {
  backend = await openVariant([]);
});
test.after(() => backend.dispose());

/** Records a step's append and attention, submits them, and reads the results. */
const recorded: Advance = async (step, layer, key, value, q) => {
  const { device } = backend;
  const bufferOf = (data: Float32Array): GPUBuffer => {
    const buffer = device.createBuffer({ size: data.byteLength, usage: usage.storage | usage.copyDst | usage.copySrc });
    device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>);
    return buffer;
  };
  const [keys, values, queries] = [key, value, q].map(bufferOf);
  const [out, lse] = [bufferOf(new Float32Array(q.length)), bufferOf(new Float32Array(q.length / shape.headDim))];
  const encoder = device.createCommandEncoder();
  step.recordAppend(encoder, layer, keys, values);
  step.recordAttend(encoder, layer, queries, { out, lse });
  const read = device.createBuffer({ size: out.size + lse.size, usage: usage.mapRead | usage.copyDst });
  encoder.copyBufferToBuffer(out, 0, read, 0, out.size);
  encoder.copyBufferToBuffer(lse, 0, read, out.size, lse.size);
  device.queue.submit([encoder.finish()]);
  await read.mapAsync(1);
  const result = { out: new Float32Array(read.getMappedRange(0, out.size).slice(0)), lse: new Float32Array(read.getMappedRange(out.size, lse.size).slice(0)) };
  for (const buffer of [keys, values, queries, out, lse, read]) buffer.destroy();
  return result;
};

const room = { capacity: 200, chunk: 30, sequences: 2 } as const;
const variants: readonly TwinOptions[] = [
  { ...room, residual: 12, residualRule: 'page', skipLayers: [1] },
  { ...room, residual: 12, residualRule: 'huggingface', residualDtype: 'f16' },
  { ...room, residual: 6, residualRule: 'page', slidingWindow: 10, sinkTokens: 3, context: 100 },
  { ...room, residual: 8, residualRule: 'huggingface', slidingWindow: 7, context: 100 },
];

for (const options of variants) {
  test(`first chunk, growth, overflow, a fork and a cut: ${JSON.stringify(options)}`, async () => {
    const twins = [new Twin(backend, options), new Twin(backend, options)];
    await twins[1].cache.warm();
    const plains = twins.map((twin) => [twin.create()]);
    const both = async (tokens: readonly number[], what: string): Promise<void> => {
      const [arrays, records] = [
        await twins[0].step(plains[0].map((plain, i) => [plain, tokens[i]]), what),
        await twins[1].step(plains[1].map((plain, i) => [plain, tokens[i]]), `${what}, recorded`, recorded),
      ];
      for (const layer of [0, 1]) {
        // States are merged on the host in the one, and on the GPU in the other.
        const error = attentionError(records[layer], arrays[layer], shape.headDim);
        ok(error.out < 1e-6 && error.lse < 1e-6, `${what}, layer ${layer}: out ${error.out}, lse ${error.lse}`);
      }
      for (const [i, twin] of twins.entries()) await twin.assertContents(plains[i], what);
    };
    for (const [pass, tokens] of [5, 1, 9, 1, 1, 1].entries()) await both([tokens], `pass ${pass}`);
    for (const [i, twin] of twins.entries()) {
      plains[i].push(twin.fork(plains[i][0]));
      twin.truncate(plains[i][1], 16);
    }
    for (const [pass, tokens] of [[1, 1], [2, 20], [1, 1], [1, 1]].entries()) await both(tokens, `pass ${pass} of two`);
    for (const twin of twins) twin.cache.dispose();
  });
}
