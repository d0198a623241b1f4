import { equal, is, match, ok } from 'uvu/assert';
import { allowedPolicies } from '../../src/index.js';
import { checkCase, generateAppendCase, generateAttendCase } from '../../src/oracle/index.js';
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

test('f16 and bf16 too', async () => {
  for (const dtype of ['f16', 'bf16'] as const) ok((await checkCase(await generateAppendCase({ dtype, headDim: 80, kvHeads: 3, blockSize: 7 }), 'case')).equal);
});

test('the same for the same seed, another for another', async () => {
  for (const generate of [generateAppendCase, generateAttendCase]) {
    equal(await generate({ seed: 5 }), await generate({ seed: 5 }));
    is(Buffer.compare(await generate({ seed: 5 }), await generate({ seed: 6 })) === 0, false);
  }
});

test('refuses what does not fit', async () => {
  match(await generateAppendCase({ headDim: 12 }).then(() => '', String), /"headDim"/);
  match(await generateAppendCase({ tokens: 0 }).then(() => '', String), /"tokens" expected a positive integer, got 0/);
});
