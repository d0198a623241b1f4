/** Residuals against a plain model of their rules: which tokens are quantized when, their bits, and attention over both kinds. */
import { equal, is, ok, throws, unreachable } from 'uvu/assert';
import { KvCache, OutOfPagesError, wasmBackend, type KvCacheOptions } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { halfOf } from '../reference/codec.js';
import { suite } from '../suite.js';
import { kvFloats, qFloats, shape, Twin, type Plain, type TwinOptions } from './residual-twin.js';

const test = suite('residual');
const backend = wasmBackend();

for (const residualRule of ['page', 'huggingface'] as const) {
  test(`residual of 128, rule ${residualRule}: first chunk, growth to 127, and the overflow`, async () => {
    for (const first of [1, 5, 127, 128, 129, 300]) {
      const twin = new Twin(backend, { residual: 128, residualRule, capacity: 500, chunk: 300 });
      const plain = twin.create();
      for (let pass = 0; pass < 132; pass++) {
        const what = `first ${first}, pass ${pass}`;
        await twin.step([[plain, pass === 0 ? first : 1]], what);
        if (pass < 3 || pass > 124) await twin.assertContents([plain], what);
      }
      twin.cache.dispose();
    }
  }, { seconds: 240 });

  test(`residual of 128, rule ${residualRule}: 1,000 decode steps`, async () => {
    const twin = new Twin(backend, { residual: 128, residualRule, capacity: 1100, chunk: 64 });
    const plain = twin.create();
    await twin.step([[plain, 33]], 'first');
    for (let pass = 0; pass < 1000; pass++) {
      await twin.step([[plain, 1]], `pass ${pass}`);
      if (pass % 50 === 49) await twin.assertContents([plain], `pass ${pass}`);
    }
    is(plain.sequence.length, 1033);
    twin.cache.dispose();
  }, { seconds: 240 });
}

test('Hugging Face\'s steps, in numbers: 127 stay, and the step that finds them is quantized with them, once it is over', async () => {
  const twin = new Twin(backend, { residual: 128, residualRule: 'huggingface', capacity: 200, chunk: 10 });
  const plain = twin.create();
  await twin.step([[plain, 10]], 'first');
  const quantized: number[] = [];
  for (let pass = 0; pass < 130; pass++) {
    await twin.step([[plain, 1]], `pass ${pass}`);
    quantized.push(plain.sequence.state.held[0].end);
  }
  // Step 127 (from 0) overflows and still reads its tokens as they came: their codes are there with the next.
  equal([quantized[0], quantized[126], quantized[127], quantized[128], quantized[129]], [10, 10, 10, 138, 138]);
  twin.cache.dispose();
});

/** Some steps, forks, cuts and aborted steps of up to three sequences. */
async function drive(options: TwinOptions, seed: number): Promise<void> {
  const twin = new Twin(backend, options, seed);
  const numbers = random(seed);
  const chunk = options.chunk ?? 9;
  let plains: Plain[] = [twin.create()];
  let steps = 0;
  for (let turn = 0; turn < 120; turn++) {
    const what = `seed ${seed}, turn ${turn}`;
    const plain = plains[numbers.integer(plains.length)];
    const picked = plains.filter(() => numbers.integer(3) > 0);
    const entries = picked.map((each) => [each, numbers.integer(3) === 0 ? numbers.integer(chunk + 1) : 1] as const);
    const kind = numbers.integer(12);
    try {
      if (kind === 0) await twin.abort(entries, numbers.integer(3));
      else if (kind === 1 && plains.length < 3) plains.push(numbers.integer(2) === 0 ? twin.create() : twin.fork(plain));
      else if (kind === 2) twin.truncate(plain, Math.max(0, plain.rule.length - numbers.integer(8)));
      else if (kind === 3 && numbers.integer(3) === 0) {
        plain.sequence.free();
        plains = plains.filter((each) => each !== plain);
        if (plains.length === 0) plains.push(twin.create());
      } else if (entries.length > 0) {
        await twin.step(entries, what);
        steps++;
      }
    } catch (error) {
      // What there is no room for, or a ring no longer has, is refused, and nothing is changed by that.
      if (!(error instanceof OutOfPagesError) && !/expected at (least|most)/.test((error as Error).message)) throw error;
      if (error instanceof OutOfPagesError) {
        plain.sequence.free();
        plains = [...plains.filter((each) => each !== plain), twin.create()];
      }
    }
    if (turn % 3 === 0) await twin.assertContents(plains, what);
  }
  ok(steps > 40, `seed ${seed}: ${steps} steps`);
  for (const { sequence } of plains) sequence.free();
  for (const { pool, pageCount } of twin.cache.groups) is(pool.free, pageCount, `seed ${seed}`);
  twin.cache.dispose();
}

const room = { capacity: 240, sequences: 3, chunk: 9 } as const;
const variants: { readonly [name: string]: Omit<TwinOptions, 'residualRule'> } = {
  'paged': { ...room, residual: 6 },
  'a residual of one': { ...room, residual: 1 },
  'a window that hides': { ...room, residual: 5, windowLeft: 7 },
  'f16': { ...room, residual: 6, residualDtype: 'f16' },
  'a ring': { ...room, residual: 6, slidingWindow: 7, context: 80 },
  'a ring shorter than the residual': { ...room, residual: 12, slidingWindow: 5, context: 80 },
  'a ring shorter than the residual, and first tokens that stay': { ...room, residual: 12, slidingWindow: 5, sinkTokens: 3, context: 80 },
  'a ring, and first tokens that stay': { ...room, residual: 4, slidingWindow: 20, sinkTokens: 5, context: 80 },
  'contiguous': { ...room, capacity: 90, residual: 9, layout: 'contiguous' },
  'a contiguous ring': { ...room, capacity: 90, residual: 9, layout: 'contiguous', slidingWindow: 11 },
  'a skipped layer': { ...room, residual: 6, skipLayers: [1] },
  'a skipped layer, rings': { ...room, residual: 6, skipLayers: [1], slidingWindow: 9, context: 80 },
};

for (const [name, options] of Object.entries(variants)) {
  for (const residualRule of ['page', 'huggingface'] as const) {
    test(`${name}, rule ${residualRule}: steps of several sequences, forks, cuts and aborts`, async () => {
      for (let seed = 1; seed <= 2; seed++) await drive({ ...options, residualRule }, seed);
    }, { seconds: 120 });
  }
}

test('fork, cut and abort in each phase: before the residual, while it grows, when it is due, and after', async () => {
  for (const residualRule of ['page', 'huggingface'] as const) {
    for (let phase = 0; phase < 14; phase++) {
      const twin = new Twin(backend, { residual: 5, residualRule, capacity: 400, chunk: 6, sequences: 8 });
      const what = `${residualRule}, phase ${phase}`;
      const plain = twin.create();
      for (let i = 0; i < phase; i++) await twin.step([[plain, i === 0 ? 3 : 1]], what);
      for (const layers of [0, 1, 2]) await twin.abort([[plain, 6]], layers);
      await twin.assertContents([plain], what);
      const copies = Array.from({ length: 6 }, () => twin.fork(plain));
      for (const [i, copy] of copies.entries()) twin.truncate(copy, Math.max(0, copy.rule.length - i));
      const all = [plain, ...copies];
      await twin.assertContents(all, what);
      for (let i = 0; i < 9; i++) await twin.step(all.map((each, which) => [each, which === i % 7 ? 4 : 1]), `${what}, step ${i}`);
      await twin.assertContents(all, what);
      twin.cache.dispose();
    }
  }
}, { seconds: 120 });

test('an f16 residual rounds what it is given, attends to that, and quantizes that', () => {
  const cache = new KvCache(backend, { ...shape, layers: 1, capacity: 32, blockSize: 4, residual: 4, residualDtype: 'f16' });
  const exact = new KvCache(backend, { ...shape, layers: 1, capacity: 32, blockSize: 4, residual: 4 });
  const caches = [cache, exact].map((each) => ({ cache: each, sequence: each.createSequence() }));
  const numbers = random(3);
  for (let pass = 0; pass < 9; pass++) {
    const [key, value, q] = [numbers.normals(kvFloats), numbers.normals(kvFloats), numbers.normals(qFloats)];
    const rounded = (x: Float32Array): Uint16Array => Uint16Array.from(x, halfOf);
    const [narrow, wide] = caches.map(({ cache: each, sequence }, i) => {
      const step = each.begin([{ sequence, tokens: 1 }]);
      if (i === 0) step.append(0, key, value);
      else step.append(0, rounded(key), rounded(value), { dtype: 'f16' });
      const result = step.attendSync(0, q);
      step.commit();
      return result;
    });
    assertSameBits(narrow.out, wide.out, `pass ${pass}`);
  }
  equal(cache.pages(0).export(), exact.pages(0).export());
});

test('on threads, the bits of one', async () => {
  for (const residualRule of ['page', 'huggingface'] as const) {
    const threads = wasmBackend({ threads: 2 });
    const options: TwinOptions = { residual: 20, residualRule, capacity: 200, chunk: 30 };
    const twins = [new Twin(backend, options), new Twin(threads, options)];
    const plains = twins.map((twin) => twin.create());
    for (const [pass, tokens] of [30, 1, 17, 1, 1, 1, 25, 1, 1].entries()) {
      const [one, two] = [await twins[0].step([[plains[0], tokens]], `pass ${pass}`), await twins[1].step([[plains[1], tokens]], `pass ${pass}, threads`)];
      for (const layer of [0, 1]) {
        assertSameBits(two[layer].out, one[layer].out, `pass ${pass}, layer ${layer}`);
        assertSameBits(two[layer].lse, one[layer].lse, `pass ${pass}, layer ${layer}`);
      }
    }
    await twins[1].assertContents([plains[1]], 'threads');
    threads.dispose();
  }
});

test('pages of the residual can run out, and nothing is changed then', async () => {
  for (const residualRule of ['page', 'huggingface'] as const) {
    const twin = new Twin(backend, { residual: 6, residualRule, capacity: 400, chunk: 4, sequences: 2 });
    const residual = twin.cache.groups.find(({ kind }) => kind === 'residual')!;
    const plains: Plain[] = [];
    const fill = async (): Promise<void> => {
      const plain = twin.create();
      plains.push(plain);
      for (const tokens of [2, 4]) await twin.step([[plain, tokens]], residualRule);
      await fill();
    };
    await fill().then(() => unreachable(), (error: unknown) => ok(error instanceof OutOfPagesError, String(error)));
    const { free } = residual.pool;
    ok(plains.length > 2 && free < 2, `${residualRule}: ${plains.length} sequences, ${free} pages are free`);
    await twin.assertContents(plains, residualRule);
    throws(() => twin.cache.begin(plains.map(({ sequence }) => ({ sequence, tokens: 4 }))), (error: Error) => error instanceof OutOfPagesError);
    is(residual.pool.free, free);
    plains.shift()!.sequence.free();
    await twin.step([[plains[0], 1]], residualRule);
    await twin.assertContents(plains, residualRule);
    twin.cache.dispose();
  }
});

test('one sequence never runs out of residual, whatever its steps', async () => {
  for (const residualRule of ['page', 'huggingface'] as const) {
    for (const [residual, chunk, context] of [[1, 1, undefined], [1, 7, undefined], [2, 7, 60], [6, 1, 40], [6, 4, undefined], [9, 60, 60], [30, 20, 44], [100, 60, 60]] as const) {
      const numbers = random(residual);
      for (let turn = 0; turn < 12; turn++) {
        const cache = new KvCache(backend, { ...shape, layers: 1, capacity: 200, blockSize: 4, residual, residualRule, chunk, context });
        const sequence = cache.createSequence();
        while (sequence.length < (context ?? 150)) {
          const tokens = Math.min(numbers.integer(3) === 0 ? chunk : 1 + numbers.integer(chunk), (context ?? 200) - sequence.length);
          const step = cache.begin([{ sequence, tokens }]);
          step.append(0, new Float32Array(tokens * kvFloats), new Float32Array(tokens * kvFloats));
          step.commit();
        }
        cache.dispose();
      }
    }
  }
});

test('results in f16 are refused from the first token on, and not only once some are quantized', () => {
  const cache = new KvCache(backend, { ...shape, layers: [{}, { dtype: 'f32' }], capacity: 32, residual: 4 });
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 1 }]);
  const [x, q] = [new Float32Array(shape.kvHeads * shape.headDim), new Float32Array(shape.queryHeads * shape.headDim)];
  for (const layer of [0, 1]) step.append(layer, x, x);
  throws(() => step.attendSync(0, q, { outDtype: 'f16' }), /"outDtype" expected f32 in a layer with "residual" or "sinkTokens"/);
  step.attendSync(1, q, { outDtype: 'f16' });
  step.commit();
  cache.dispose();
});

test('options that do not fit are refused', () => {
  const refused = (options: Partial<KvCacheOptions>, message: RegExp): void =>
    throws(() => new KvCache(backend, { ...shape, layers: 1, capacity: 32, ...options }), message);
  refused({ residual: 0 }, /"residual" expected an integer from 1 to 1048576, got number 0/);
  refused({ residual: 1.5 }, /"residual" expected an integer/);
  refused({ residual: 4, residualRule: 'kivi' as never }, /"residualRule" expected page or huggingface, got "kivi"/);
  refused({ residual: 4, residualRule: 'huggingface' }, /"chunk" expected the most new tokens of a step, which "residualRule" has to know, got undefined/);
  refused({ residual: 4, residualDtype: 'bf16' as never }, /"residualDtype" expected f32 or f16, got "bf16"/);
  refused({ residualRule: 'page' }, /"residualRule" expected to be absent without "residual", got "page"/);
  refused({ residualDtype: 'f16' }, /"residualDtype" expected to be absent without "residual", got "f16"/);
  refused({ residual: 4, residualDtype: 'f16', dtype: { k: 'fp8', v: 'f32' } }, /"residualDtype" expected f32 where keys or values are f32, which f16 would round, got f16/);
  refused({ residual: 4, prefix: { model: 'a' } }, /"prefix" expected a cache without "residual"/);
  refused({ sequences: 2 }, /"sequences" expected to be absent with layout paged/);
  // A layer that is not quantized passes it by.
  new KvCache(backend, { ...shape, layers: 1, capacity: 32, dtype: 'f32', residual: 4, residualDtype: 'f16' }).dispose();
  const step = new KvCache(backend, { ...shape, layers: 1, capacity: 32, residual: 4, residualRule: 'huggingface', chunk: 3 });
  throws(() => step.begin([{ sequence: step.createSequence(), tokens: 4 }]), /"entries\[0\]\.tokens" expected at most 3, the cache's "chunk", got 4/);
});
