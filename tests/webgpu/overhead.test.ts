/** What a decode step costs beside its kernels: dispatches, bind groups, buffers and writes, counted. */
import { equal, is, ok } from 'uvu/assert';
import { KvCache, type AttendResult, type KvCacheOptions } from '../../src/index.js';
import type { WebgpuBackend } from '../../src/webgpu/backend.js';
import { usage } from '../../src/webgpu/constants.js';
import { webgpuBackend } from '../../src/webgpu/open.js';
import { assertSameBits } from '../bits.js';
import { adapterName, noAdapter } from '../gpu/adapter.js';
import { counted, type DeviceCounts } from '../gpu/counted.js';
import { openVariant } from '../gpu/variants.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite(`overhead, ${adapterName}`, { skip: noAdapter });
let plain: WebgpuBackend;
test.before(async () => {
  plain = await openVariant([]);
});
test.after(() => plain.dispose());

/** Layers alike, and layers unlike: other parameters, other kernels. */
const options: KvCacheOptions = {
  layers: [
    {},
    {},
    { windowLeft: 100, sinks: Float32Array.of(0.5, -1, -0, 0), alibiSlopes: Float32Array.of(0.5, 0.25, 0.125, 0.0625), granularity: 'head', scale: Float32Array.of(0.03, 0.02) },
    { dtype: { k: 'e5m2', v: 'f16' }, softcap: 9, granularity: { k: 'channel', v: undefined }, scale: { k: Float32Array.from({ length: 32 }, (_, i) => 0.01 * (1 + i)), v: undefined } },
  ],
  queryHeads: 4, kvHeads: 2, headDim: 16, blockSize: 4, capacity: 1000,
};
const layers = 4;
const [kvFloats, qFloats] = [32, 64];
/** Together they pass 256 keys, which is a whole cut, and widen the block table. */
const [prompt, steps] = [200, 100];

type Costs = Pick<DeviceCounts, 'dispatches' | 'bindGroups' | 'created' | 'writes'>;
const costs = ({ dispatches, bindGroups, created, writes }: DeviceCounts): Costs => ({ dispatches, bindGroups, created, writes });
const since = (now: DeviceCounts, before: Costs): Costs => ({
  dispatches: now.dispatches - before.dispatches, bindGroups: now.bindGroups - before.bindGroups, created: now.created - before.created, writes: now.writes - before.writes,
});

/** Keys, values and queries of every layer's next step, the same each time it is called anew. */
function inputs(): (tokens: number) => { readonly [name in 'key' | 'value' | 'q']: Float32Array<ArrayBuffer> }[] {
  const numbers = random(7);
  const normals = (floats: number): Float32Array<ArrayBuffer> => numbers.normals(floats) as Float32Array<ArrayBuffer>;
  return (tokens) => Array.from({ length: layers }, () => ({ key: normals(tokens * kvFloats), value: normals(tokens * kvFloats), q: normals(tokens * qFloats) }));
}

/** A step of two sequences, whose calls take typed arrays. */
async function advance(cache: KvCache, sequences: readonly ReturnType<KvCache['createSequence']>[], given: ReturnType<ReturnType<typeof inputs>>, tokens: number): Promise<AttendResult[]> {
  const step = cache.begin(sequences.map((sequence) => ({ sequence, tokens })));
  const results: AttendResult[] = [];
  for (const [layer, { key, value, q }] of given.entries()) {
    await step.append(layer, key, value);
    results.push(await step.attend(layer, q));
  }
  step.commit();
  return results;
}

const twoSequences = (cache: KvCache): ReturnType<KvCache['createSequence']>[] => [cache.createSequence(), cache.createSequence()];

test('a recorded step: 3 dispatches a layer, no bind group, no buffer, one write, and the bits of calls by themselves', async () => {
  const expectedCache = new KvCache(plain, options);
  const expectedSequences = twoSequences(expectedCache);
  const expectedInputs = inputs();
  await advance(expectedCache, expectedSequences, expectedInputs(2 * prompt), prompt);
  const expected: AttendResult[][] = [];
  for (let i = 0; i < steps; i++) expected.push(await advance(expectedCache, expectedSequences, expectedInputs(2), 1));

  const own = plain.device;
  const { device, counts } = counted(own);
  const backend = await webgpuBackend({ device, optionalFeatures: [] });
  const cache = new KvCache(backend, options);
  await cache.warm();
  const sequences = twoSequences(cache);
  const next = inputs();
  await advance(cache, sequences, next(2 * prompt), prompt);
  // The engine's own buffers are none of the backend's business.
  const buffer = (floats: number): GPUBuffer => own.createBuffer({ size: 4 * floats, usage: usage.storage | usage.copyDst | usage.copySrc });
  const [key, value, q, out] = [buffer(2 * kvFloats), buffer(2 * kvFloats), buffer(2 * qFloats), buffer(2 * qFloats)];
  const kept = own.createBuffer({ size: steps * layers * out.size, usage: usage.mapRead | usage.copyDst });
  const upload = buffer(steps * layers * 2 * (2 * kvFloats + qFloats));
  const perStep: Costs[] = [];
  let at = 0;
  const copyIn = (encoder: GPUCommandEncoder, data: Float32Array<ArrayBuffer>, to: GPUBuffer): void => {
    own.queue.writeBuffer(upload, at, data);
    encoder.copyBufferToBuffer(upload, at, to, 0, data.byteLength);
    at += data.byteLength;
  };
  for (let i = 0; i < steps; i++) {
    const before = costs(counts);
    const step = cache.begin(sequences.map((sequence) => ({ sequence, tokens: 1 })));
    const encoder = device.createCommandEncoder();
    for (const [layer, given] of next(2).entries()) {
      copyIn(encoder, given.key, key);
      copyIn(encoder, given.value, value);
      copyIn(encoder, given.q, q);
      step.recordAppend(encoder, layer, key, value);
      step.recordAttend(encoder, layer, q, { out });
      encoder.copyBufferToBuffer(out, 0, kept, (i * layers + layer) * out.size, out.size);
    }
    step.commit();
    own.queue.submit([encoder.finish()]);
    perStep.push(since(counts, before));
  }

  await kept.mapAsync(1);
  for (const [i, results] of expected.entries()) {
    for (const [layer, { out: bits }] of results.entries()) {
      assertSameBits(new Float32Array(kept.getMappedRange((i * layers + layer) * out.size, out.size).slice(0)), bits, `step ${i}, layer ${layer}`);
    }
  }
  for (let layer = 0; layer < layers; layer++) equal(await cache.pages(layer).export(), await expectedCache.pages(layer).export());

  const most = (name: keyof Costs): number => Math.max(...perStep.slice(1).map((step) => step[name]));
  ok(most('dispatches') > 0 && most('dispatches') <= 3 * layers, `${most('dispatches')} dispatches`);
  is(most('bindGroups'), 0, 'bind groups after the first step');
  is(most('created'), 0, 'buffers after the first step');
  ok(perStep[0].bindGroups > 0 && perStep[0].bindGroups <= 3 * layers, `${perStep[0].bindGroups} bind groups in the first step`);
  ok(most('writes') > 0 && most('writes') <= layers, `${most('writes')} writes in a step`);
  // More than one only where a block table widens, or keys fill another cut: then each kind of layer has parameters to write.
  const more = perStep.slice(1).filter(({ writes }) => writes > 1).length;
  ok(more <= 2, `${more} steps with more than one write`);
  for (const each of [key, value, q, out, kept, upload]) each.destroy();
  cache.dispose();
  backend.dispose();
  is(counts.buffers, 0, 'buffers that are left');
  expectedCache.dispose();
});

test('a step whose keys, values and queries come as typed arrays: one more write than those, and no bind group', async () => {
  const { device, counts } = counted(plain.device);
  const backend = await webgpuBackend({ device, optionalFeatures: [] });
  const cache = new KvCache(backend, options);
  const sequences = twoSequences(cache);
  const next = inputs();
  await advance(cache, sequences, next(20), 10);
  await advance(cache, sequences, next(2), 1);
  for (let i = 0; i < 5; i++) {
    const before = costs(counts);
    await advance(cache, sequences, next(2), 1);
    const { dispatches, bindGroups, created, writes } = since(counts, before);
    equal({ bindGroups, created, writes }, { bindGroups: 0, created: 0, writes: 3 * layers + 1 });
    ok(dispatches <= 3 * layers, `${dispatches} dispatches`);
  }
  cache.dispose();
  backend.dispose();
});
