/** How kernels share out their work changes no bit of a result. */
import { equal, ok, throws } from 'uvu/assert';
import type { AttendResult } from '../../src/index.js';
import { WebgpuBackend } from '../../src/webgpu/backend.js';
import { requestWebgpuBackend } from '../../src/webgpu/open.js';
import { subgroupSize } from '../../src/webgpu/probe.js';
import { tuneWebgpu, type TunedCandidate } from '../../src/webgpu/tune.js';
import { checkTuning, defaultTuning, tuningChoices, tuningFor, type Tuning } from '../../src/webgpu/tuning.js';
import { variantOf } from '../../src/webgpu/variant.js';
import { assertSameBits } from '../bits.js';
import { callOf, fixture } from '../fixture.js';
import { adapterName, gpu, noAdapter } from '../gpu/adapter.js';
import { tuningOf } from '../gpu/tunings.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('tuning');

test('what JSON keeps is what comes back, and what does not fit is named', () => {
  const tuning = defaultTuning({ vendor: 'nvidia', architecture: 'hopper' });
  equal(checkTuning(JSON.parse(JSON.stringify(tuning))), tuning);
  const changed = (changes: object): unknown => ({ ...tuning, ...changes });
  throws(() => checkTuning(undefined), /"tuning" expected an object/);
  throws(() => checkTuning(changed({ vendor: 1 })), /"tuning\.vendor" expected a string/);
  throws(() => checkTuning(changed({ subgroups: 'yes' })), /"tuning\.subgroups" expected true or false/);
  throws(() => checkTuning(changed({ decode: null })), /"tuning\.decode" expected an object/);
  throws(() => checkTuning(changed({ decode: { ...tuning.decode, loadsAhead: 3 } })), /"tuning\.decode\.loadsAhead" expected 2, 4 or 8, got number 3/);
  throws(() => checkTuning(changed({ decode: { ...tuning.decode, leastWorkgroups: 0 } })), /"tuning\.decode\.leastWorkgroups"/);
  throws(() => checkTuning(changed({ prefill: { rowsPerWorkgroup: 16 } })), /"tuning\.prefill\.rowsPerWorkgroup" expected 32 or 64, got number 16/);
});

test('an adapter gets the tuning that is for it, and none of another', () => {
  const hopper = { vendor: 'nvidia', architecture: 'hopper' };
  const own: Tuning = { ...defaultTuning(hopper), decode: { loadsAhead: 8, cutsPerWorkgroup: 8, leastWorkgroups: 5 } };
  const other: Tuning = { ...own, architecture: 'ampere' };
  equal(tuningFor(hopper, own), own);
  equal(tuningFor(hopper, [other, own]), own);
  equal(tuningFor(hopper, other), defaultTuning(hopper));
  equal(tuningFor(hopper), defaultTuning(hopper));
});

const onGpu = suite(`tuning, ${adapterName}`, { skip: noAdapter });

onGpu('decode: the bits depend neither on loads ahead, nor on cuts for a workgroup, nor on subgroups', async () => {
  const adapter = (await gpu!.requestAdapter())!;
  const hasSubgroups = adapter.features.has('subgroups');
  const device = await adapter.requestDevice({ requiredFeatures: hasSubgroups ? ['subgroups'] : [] });
  const size = await subgroupSize(device);
  // What a kernel counts on: no subgroup is smaller.
  ok(size <= (adapter.info.subgroupMinSize ?? 4));
  const { loadsAhead, cutsPerWorkgroup } = tuningChoices;
  const tunings = [
    ...loadsAhead.map((each) => tuningOf({ decode: { loadsAhead: each, cutsPerWorkgroup: 1, leastWorkgroups: 1 } })),
    ...cutsPerWorkgroup.map((each) => tuningOf({ decode: { loadsAhead: 4, cutsPerWorkgroup: each, leastWorkgroups: 1 } })),
  ];
  const attend = async (subgroups: number, tuning: Tuning, k: 'e4m3fn' | 'f32', headDim: number): Promise<AttendResult> => {
    const backend = new WebgpuBackend(device, variantOf({ subgroupSize: subgroups, f16: false, unpacksF16: true }, tuning), false);
    const queryHeads = 6;
    const cache = await fixture(backend, random(71), { kvHeads: 2, headDim, blockSize: 16, kvLens: [900, 3, 700], k: { dtype: k }, v: { dtype: 'e5m2' } });
    const q = random(72).normals(4 * queryHeads * headDim);
    const result = await backend.attend({ ...callOf(cache, [1, 1, 2], q), windowLeft: 700 });
    backend.dispose();
    return result;
  };
  // With few dims a workgroup takes as many keys at a time as a cut has after a few loads; with 64, four invocations share a
  // key, which are a subgroup on SwiftShader.
  for (const [k, headDim] of [['e4m3fn', 128], ['f32', 128], ['e4m3fn', 8], ['e4m3fn', 64]] as const) {
    const expected = await attend(0, tunings[0], k, headDim);
    const others = [...tunings.slice(1).map((tuning) => [0, tuning] as const), ...(size > 0 ? loadsAhead.map((_, i) => [size, tunings[i]] as const) : [])];
    for (const [subgroups, tuning] of others) {
      const { out, lse } = await attend(subgroups, tuning, k, headDim);
      assertSameBits(out, expected.out, `${k}, D${headDim}, ${subgroups > 0 ? 'subgroups' : 'plain'}, ${JSON.stringify(tuning.decode)}`);
      assertSameBits(lse, expected.lse);
    }
  }
  device.destroy();
}, { seconds: 300 });

onGpu('what tuning finds is what a backend takes', async () => {
  const tried: TunedCandidate[] = [];
  const tuning = await tuneWebgpu({ gpu, queryHeads: 2, kvHeads: 1, headDim: 16, onCandidate: (candidate) => tried.push(candidate) });
  equal(checkTuning(tuning), tuning);
  ok(tried.every(({ milliseconds }) => milliseconds > 0));
  const { loadsAhead, cutsPerWorkgroup, rowsPerWorkgroup } = tuningChoices;
  equal(new Set(tried.map((each) => each.tuning.decode.loadsAhead)), new Set(loadsAhead));
  equal(new Set(tried.map((each) => each.tuning.decode.cutsPerWorkgroup)), new Set(cutsPerWorkgroup));
  equal(new Set(tried.map((each) => each.tuning.prefill.rowsPerWorkgroup)), new Set(rowsPerWorkgroup));
  const own: Tuning = { ...tuning, subgroups: false };
  const backend = await requestWebgpuBackend({ gpu, tuning: [{ ...own, vendor: 'another' }, own] });
  equal(backend.variant.tuning, own);
  equal(backend.variant.subgroupSize, 0);
  backend.dispose();
  const refused = await requestWebgpuBackend({ gpu, tuning: { ...own, vendor: 7 } as never }).catch(String);
  ok(/"tuning\.vendor" expected a string, got number 7/.test(refused as string), `${refused as string}`);
}, { seconds: 300 });
