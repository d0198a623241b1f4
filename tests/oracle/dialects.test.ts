/** Data of all kinds, made with each known fault, gets that fault's name and no other that the data rules out. */
import { equal, is, ok } from 'uvu/assert';
import { float32 } from '../../src/files/tensor.js';
import { parseSafetensors } from '../../src/files/safetensors.js';
import { checkCodes, dialects, generateCodes, type CodeCheck, type GenerateCodesOptions } from '../../src/oracle/index.js';
import type { Fp8Format, Granularity } from '../../src/index.js';
import { suite } from '../suite.js';
import { faults, faulty } from './faulty.js';

const test = suite('oracle, dialects');
const [tokens, heads, dim] = [52, 2, 64];
const names = ({ explanation }: CodeCheck): readonly string[] => explanation?.all.map(({ name }) => name) ?? [];

/** Casts that differ for what too large numbers, infinities, and NaN with a payload become. Codes of E4M3FN do not say which NaN they are. */
const casts = ['torch', 'torch, clamped', 'ml_dtypes', 'ml_dtypes, clipped', 'ml_dtypes, saturating', 'LLVM'];
const unclamped = ['torch', 'ml_dtypes', 'LLVM'];
const clamped = ['torch, clamped', 'ml_dtypes, clipped'];

/** All that the data does not tell apart from a fault. */
function alike(name: string, format: Fp8Format, granularity: Granularity | undefined): readonly string[] {
  const computed = granularity === 'token-head' || granularity === 'group';
  if (casts.includes(name)) {
    // Nothing is too large where scales are computed, and infinity has an infinite scale.
    if (format === 'e4m3fn') return computed ? casts : unclamped.includes(name) ? unclamped : clamped;
    return computed ? casts.filter((cast) => cast.startsWith(name.split(',')[0])) : [name];
  }
  if (name === 'reciprocal + torch, clamped' && format === 'e4m3fn') return clamped.map((cast) => `reciprocal + ${cast}`);
  return [name];
}

const ofGiven = ['non-saturating', ...casts.slice(0, 4), 'FNUZ', 'round-half-away', 'truncation'];
const ofGivenScales = ['reciprocal', 'f16-rounded scale', 'reciprocal + torch, clamped'];

function namesFor(format: Fp8Format, granularity: Granularity | undefined): readonly string[] {
  if (granularity === undefined) return ofGiven;
  if (granularity !== 'token-head' && granularity !== 'group') return [...ofGiven, ...ofGivenScales];
  // Nothing is too large for a scale that is computed; and E5M2FNUZ has the largest number of E5M2.
  return Object.keys(faults).filter((name) => name !== 'non-saturating' && !(format === 'e5m2' && name.includes('scale for 2')));
}

/** What `gen` gives, and which scale is for a value. */
async function data(options: GenerateCodesOptions) {
  const { tensors } = parseSafetensors(await generateCodes({ ...options, tokens, kvHeads: heads, headDim: dim }), 'case');
  const input = float32(tensors.get('input')!).slice();
  const scales = tensors.get('scales') && float32(tensors.get('scales')!);
  const { granularity } = options;
  const at = (i: number): number => (granularity === 'tensor' ? 0 : granularity === 'head' ? Math.floor(i / dim) % heads : i % (heads * dim));
  const givenAt = granularity === undefined ? () => 1 : scales && ((i: number) => scales[at(i)]);
  return { input, scales, givenAt };
}

for (const format of ['e4m3fn', 'e5m2'] as const) {
  for (const granularity of [undefined, 'tensor', 'head', 'channel', 'token-head', 'group'] as const) {
    test(`${format}, ${granularity ?? 'no scales'}`, async () => {
      const groupSize = granularity === 'group' ? 16 : undefined;
      const { input, scales, givenAt } = await data({ format, granularity, groupSize, seed: 3 });
      const call = { input, shape: [tokens, heads, dim], format, granularity, groupSize };
      const stored = (made: Float32Array): Float32Array | undefined => (granularity === undefined ? undefined : (scales ?? made));
      const right = faulty(input, format, groupSize ?? dim, {}, givenAt);
      is(checkCodes({ ...call, codes: right.codes, scales: stored(right.scales) }).explanation, undefined, 'right');
      for (const name of namesFor(format, granularity)) {
        const made = faulty(input, format, groupSize ?? dim, faults[name], givenAt);
        const found = names(checkCodes({ ...call, codes: made.codes, scales: stored(made.scales) }));
        if (name === 'f16-rounded scale + reciprocal') ok(found.some((each) => each.startsWith('f16-rounded scale')), name);
        else equal([...found].sort(), [...alike(name, format, granularity)].sort(), name);
      }
    });
  }
}

test('another recipe, where floors or zeros show that it is that', async () => {
  for (const [recipe, asked, format] of [['amax', 'vllm-token-head', 'e4m3fn'], ['compressed-tensors', 'amax', 'e5m2'], ['vllm-token-head', 'amax', 'int8']] as const) {
    const { tensors } = parseSafetensors(await generateCodes({ format, recipe, granularity: 'token-head', tokens }), 'case');
    const [codes, scales] = [tensors.get('expected.codes')!.data, float32(tensors.get('expected.scales')!)];
    const check = checkCodes({ input: float32(tensors.get('input')!), shape: [tokens, heads, dim], format, granularity: 'token-head', codes, scales, recipe: asked });
    equal(names(check), [`recipe ${recipe}`]);
  }
});

test('no dialect that can be made is left out', () => {
  const tried = new Set([...Object.keys(faults), ...casts]);
  const elsewhere = ['saturating', 'divide', 'HND for NHD', 'NHD for HND', 'K scale used for V'];
  equal(dialects.map(({ name }) => name).filter((name) => !tried.has(name)), elsewhere);
});
