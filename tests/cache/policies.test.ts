import { readFileSync } from 'node:fs';
import { equal, is, match, ok } from 'uvu/assert';
import { allowedPolicies, KvCache, recipes, wasmBackend, type Format, type Granularity, type KvCacheOptions, type RecipeName } from '../../src/index.js';
import { policiesFile, withTables } from '../../scripts/policies.js';
import { suite } from '../suite.js';

const test = suite('policies');
const backend = wasmBackend();
const formats: Format[] = ['e4m3fn', 'e5m2', 'int8', 'f16', 'f32'];
const granularities: Granularity[] = ['tensor', 'head', 'channel', 'token-head', 'group'];
const names = Object.keys(recipes) as RecipeName[];

const optionsOf = (dtype: Format, granularity: Granularity, recipe: RecipeName): KvCacheOptions => ({
  layers: 1, kvHeads: 1, headDim: 16, blockSize: 8, capacity: 16,
  dtype, granularity, recipe, groupSize: granularity === 'group' ? 8 : undefined,
});

/** What making the cache throws. */
function refusal(options: KvCacheOptions): Error | undefined {
  try {
    new KvCache(backend, options).dispose();
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

function assertNamesWhatToUse(error: Error, others: readonly string[], what: string): void {
  ok(error instanceof TypeError, what);
  match(error.message, /^"[a-z.]+" expected [^.;\n]*, got [a-z0-9-]+$/i, what);
  const expected = / expected (.*) for /.exec(error.message)![1].split(/, | or /);
  equal(expected, others, what);
}

test('every combination is a cache, or refused in one sentence that names all that could be asked for instead', () => {
  let allowed = 0;
  for (const format of formats) {
    for (const granularity of granularities) {
      const policy = allowedPolicies().find((each) => each.format === format && each.granularity === granularity);
      for (const recipe of names) {
        const what = `${format}, ${granularity}, ${recipe}`;
        const error = refusal(optionsOf(format, granularity, recipe));
        if (policy === undefined) {
          assertNamesWhatToUse(error!, allowedPolicies().filter((each) => each.format === format).map((each) => each.granularity), what);
        } else if (policy.scales === 'computed' && !policy.recipes.includes(recipe)) {
          assertNamesWhatToUse(error!, policy.recipes, what);
        } else {
          is(error, undefined, what);
          allowed++;
        }
      }
    }
  }
  // 3 quantized formats × 3 granularities that are given, 2 unquantized ones; and what computes e4m3fn, e5m2 (5 recipes each) and int8 (4).
  is(allowed, (9 + 2) * 6 + 2 * (5 + 5 + 4));
});

test('the list is what the design says, and cannot be changed', () => {
  is(allowedPolicies().length, 3 * 5 + 2);
  const computed = (format: Format) => allowedPolicies().find((each) => each.format === format && each.granularity === 'group')!.recipes;
  equal(computed('int8'), ['amax', 'vllm-token-head', 'compressed-tensors', 'ferrum-int8']);
  equal(computed('e5m2'), ['amax', 'vllm-token-head', 'compressed-tensors', 'mila-activation', 'max-over-amax']);
  ok(Object.isFrozen(allowedPolicies()));
  for (const policy of allowedPolicies()) {
    ok(Object.isFrozen(policy) && Object.isFrozen(policy.recipes));
    is(policy.recipes.length > 0, policy.scales === 'computed');
    is(policy.shape === '', policy.scales === 'none');
  }
});

test('docs/policies.md has the tables that the code prints: else run scripts/policies.ts', () => {
  const document = readFileSync(policiesFile, 'utf8');
  is(withTables(document), document);
});
