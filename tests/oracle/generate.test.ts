import { equal, is, match, ok } from 'uvu/assert';
import { allowedPolicies } from '../../src/index.js';
import { checkCase, generateAppendCase, generateAttendCase, generateCodes, type GenerateCodesOptions } from '../../src/oracle/index.js';
import { parseSafetensors, serializeSafetensors } from '../../src/files/safetensors.js';
import { float32, type Tensor } from '../../src/files/tensor.js';
import { suite } from '../suite.js';

const test = suite('oracle, generate');

test('cases of every policy and recipe are right by the oracle', async () => {
  for (const { format, granularity, recipes } of allowedPolicies()) {
    const groupSize = granularity === 'group' ? 16 : undefined;
    for (const recipe of recipes.length > 0 ? recipes : [undefined]) {
      const check = await checkCase(await generateAppendCase({ format, granularity, groupSize, recipe, headDim: 32 }), 'case');
      ok(check.equal, `${format} ${granularity} ${recipe}: ${JSON.stringify(check)}`);
    }
    ok((await checkCase(await generateAttendCase({ format, granularity, groupSize, headDim: 32 }), 'case')).equal, `${format} ${granularity}`);
  }
});

/** Codes of every format, granularity, recipe and dtype, and those of values as they are. */
function* allCodes(): Generator<GenerateCodesOptions> {
  const shape = { tokens: 26, headDim: 32 };
  for (const dtype of ['f32', 'f16', 'bf16'] as const) {
    for (const format of ['e4m3fn', 'e5m2'] as const) for (const saturate of [true, false]) yield { ...shape, dtype, format, saturate };
    for (const { format, granularity, scales, recipes } of allowedPolicies()) {
      if (scales === 'none') continue;
      const groupSize = granularity === 'group' ? 16 : undefined;
      for (const recipe of recipes.length > 0 ? recipes : [undefined]) yield { ...shape, dtype, format, granularity, groupSize, recipe };
      if (scales === 'computed') yield { ...shape, dtype, format, granularity, groupSize, scalePrecision: 'f16' };
    }
  }
}

test('codes of every format, granularity, recipe and dtype are right by the oracle', async () => {
  let count = 0;
  for (const options of allCodes()) {
    const check = await checkCase(await generateCodes(options), 'case');
    ok(check.equal, `${JSON.stringify(options)}: ${JSON.stringify(check)}`);
    count++;
  }
  ok(count > 100, `${count} cases`);
});

test('codes have all there are, ties with given scales, and what is no number', async () => {
  const { tensors } = parseSafetensors(await generateCodes(), 'case');
  is(new Set(tensors.get('expected.codes')!.data).size, 255, 'all but -NaN');
  for (const granularity of ['tensor', 'head', 'channel'] as const) {
    const given = parseSafetensors(await generateCodes({ granularity }), 'case').tensors;
    const scales = float32(given.get('scales')!);
    const ties = float32(given.get('input')!).filter((x, i) => {
      const quotient = Math.abs(x / scales[granularity === 'tensor' ? 0 : granularity === 'head' ? Math.floor(i / 64) % 2 : i % 128]);
      return quotient >= 2 ** -6 && quotient <= 448 && Number.isInteger(quotient / 2 ** (Math.floor(Math.log2(quotient)) - 4)) && !Number.isInteger(quotient / 2 ** (Math.floor(Math.log2(quotient)) - 3));
    });
    ok(ties.length > 50, `${granularity}: ${ties.length} ties`);
  }
});

/** The case with other tensors. */
const changed = (bytes: Uint8Array, change: (tensors: Map<string, Tensor>) => void): Uint8Array => {
  const { tensors, metadata } = parseSafetensors(bytes, 'case');
  const copy = new Map(tensors);
  change(copy);
  return serializeSafetensors(copy, metadata);
};

test('what a codes case must have', async () => {
  const bytes = await generateCodes({ granularity: 'token-head', tokens: 3 });
  const said = (change: (tensors: Map<string, Tensor>) => void): Promise<string> => checkCase(changed(bytes, change), 'case').then(({ equal }) => String(equal), String);
  is(await said((all) => void all.delete('expected.scales')), 'true', 'scales that nobody looks at');
  match(await said((all) => void all.delete('expected.codes')), /FormatError: case.* tensor "expected\.codes" expected to be there/);
  match(await said((all) => void all.set('expected.codes', { ...all.get('expected.codes')!, shape: [3, 64, 2] })), /tensor "expected\.codes" expected shape \[3, 2, 64\], got \[3, 64, 2\]/);
  match(await said((all) => void all.set('expected.scales', { ...all.get('expected.scales')!, shape: [2, 3] })), /"expected\.scales" expected shape \[3, 2\], got \[2, 3\]/);
  match(await said((all) => void all.set('expected.codes', { ...all.get('expected.codes')!, dtype: 'F8_E5M2' })), /metadata states e4m3fn, tensor "expected\.codes" is F8_E5M2/);
});

test('f16 and bf16 too', async () => {
  for (const dtype of ['f16', 'bf16'] as const) ok((await checkCase(await generateAppendCase({ dtype, headDim: 80, kvHeads: 3, blockSize: 7 }), 'case')).equal);
});

test('the same for the same seed, another for another', async () => {
  for (const generate of [generateAppendCase, generateAttendCase, generateCodes]) {
    equal(await generate({ seed: 5 }), await generate({ seed: 5 }));
    is(Buffer.compare(await generate({ seed: 5 }), await generate({ seed: 6 })) === 0, false);
  }
});

test('refuses what does not fit', async () => {
  match(await generateAppendCase({ headDim: 12 }).then(() => '', String), /"headDim"/);
  match(await generateCodes({ format: 'int8' }).then(() => '', String), /"granularity" expected to be stated for int8/);
  match(await generateCodes({ recipe: 'amax' }).then(() => '', String), /"recipe" expected to be absent without "granularity"/);
  match(await generateCodes({ recipe: 'amax', granularity: 'head' }).then(() => '', String), /"recipe" expected to be absent where scales are given/);
  match(await generateCodes({ saturate: false, granularity: 'head' }).then(() => '', String), /"saturate" expected to be true/);
  match(await generateCodes({ format: 'f16' }).then(() => '', String), /"format" expected/);
  match(await generateAppendCase({ tokens: 0 }).then(() => '', String), /"tokens" expected a positive integer, got 0/);
});
