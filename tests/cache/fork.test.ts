import { equal, is } from 'uvu/assert';
import { wasmBackend, type KvCache, type Sequence } from '../../src/index.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { appendToAll, assertHolds, assertSameResult, attendTo, cacheOf, concatenate, extend, f32, first, fp8, randomTokens } from './tokens.js';

const test = suite('fork and abort');
const backend = wasmBackend();

for (const [name, shape] of [['f32', f32], ['fp8', fp8]] as const) {
  test(`forks share pages until one writes, and never see each other (${name})`, () => {
    const cache = cacheOf(backend, shape, 10);
    const numbers = random(9);
    const [shared, a, b, c] = [6, 1, 3, 7].map((count) => randomTokens(numbers, shape, count));
    const sequence = cache.createSequence();
    extend(cache, sequence, shared, shape);
    is(cache.freePages, 8);
    const twin = sequence.fork();
    const third = twin.fork();
    is(cache.freePages, 8);
    extend(cache, sequence, a, shape);
    is(cache.freePages, 7, 'the last page was copied, the full one was not');
    is(sequence.blocks[0], twin.blocks[0]);
    assertHolds(backend, cache, twin, shared, shape, 'the twin');
    // Both in one step, each with a copy of its own.
    const step = cache.begin([{ sequence: twin, tokens: 3 }, { sequence: third, tokens: 7 }]);
    appendToAll(cache, step, concatenate([b, c]));
    step.commit();
    assertHolds(backend, cache, sequence, concatenate([shared, a]), shape, 'the first');
    assertHolds(backend, cache, twin, concatenate([shared, b]), shape, 'the twin');
    assertHolds(backend, cache, third, concatenate([shared, c]), shape, 'the third');
    is(cache.freePages, 10 - 1 - 1 - 2 - 3, 'one shared, one, two and three of their own');
    for (const each of [twin, sequence, third]) each.free();
    is(cache.freePages, 10);
    cache.dispose();
  });
}

test('the last owner of a page writes without a copy', () => {
  const cache = cacheOf(backend, f32, 2);
  const [shared, more] = [6, 2].map((count) => randomTokens(random(count), f32, count));
  const sequence = cache.createSequence();
  extend(cache, sequence, shared, f32);
  sequence.fork().free();
  extend(cache, sequence, more, f32);
  assertHolds(backend, cache, sequence, concatenate([shared, more]), f32, 'the only one');
  cache.dispose();
});

test('a fork at the end of a page copies nothing', () => {
  const cache = cacheOf(backend, fp8, 4);
  const numbers = random(10);
  const [shared, a, b] = [8, 1, 4].map((count) => randomTokens(numbers, fp8, count));
  const sequence = cache.createSequence();
  extend(cache, sequence, shared, fp8);
  const twin = sequence.fork();
  extend(cache, sequence, a, fp8);
  extend(cache, twin, b, fp8);
  is(cache.freePages, 0);
  assertHolds(backend, cache, sequence, concatenate([shared, a]), fp8, 'the first');
  assertHolds(backend, cache, twin, concatenate([shared, b]), fp8, 'the twin');
  cache.dispose();
});

test('after truncation into a shared page, writing copies it', () => {
  const cache = cacheOf(backend, fp8, 8);
  const numbers = random(11);
  const [shared, a, b] = [11, 2, 5].map((count) => randomTokens(numbers, fp8, count));
  const sequence = cache.createSequence();
  extend(cache, sequence, shared, fp8);
  const [inside, boundary] = [sequence.fork(), sequence.fork()];
  inside.truncate(5);
  boundary.truncate(4);
  is(inside.blocks.length, 2);
  is(boundary.blocks.length, 1);
  is(cache.freePages, 5, 'the first still holds all three');
  extend(cache, inside, a, fp8);
  is(cache.freePages, 4, 'a copy of the second page');
  extend(cache, boundary, b, fp8);
  is(cache.freePages, 2, 'two new pages, no copy');
  assertHolds(backend, cache, sequence, shared, fp8, 'the first');
  assertHolds(backend, cache, inside, concatenate([first(shared, fp8, 5), a]), fp8, 'inside a page');
  assertHolds(backend, cache, boundary, concatenate([first(shared, fp8, 4), b]), fp8, 'at a boundary');
  sequence.truncate(0);
  is(cache.freePages, 2 + 2, 'of the three pages, the first is still shared');
  assertHolds(backend, cache, boundary, concatenate([first(shared, fp8, 4), b]), fp8, 'at a boundary, after the first is gone');
  cache.dispose();
});

/** All that can be seen of sequences and cache. */
function seen(cache: KvCache, sequences: readonly Sequence[]) {
  const q = random(12).normals(3 * 32);
  return {
    freePages: cache.freePages,
    bytesInUse: cache.memory.bytesInUse,
    sequences: sequences.map((sequence) => ({
      length: sequence.length,
      blocks: [...sequence.blocks],
      attention: [0, 1].map((layer) => attendTo(backend, cache, layer, sequence, q, fp8)),
    })),
  };
}

function assertSeen(cache: KvCache, sequences: readonly Sequence[], before: ReturnType<typeof seen>): void {
  const after = seen(cache, sequences);
  equal(after, before);
  before.sequences.forEach(({ attention }, s) => {
    attention.forEach((expected, layer) => assertSameResult(after.sequences[s].attention[layer], expected, `sequence ${s}, layer ${layer}`));
  });
}

test('abort leaves everything as before, wherever the step was, and the step can be done again', () => {
  const cache = cacheOf(backend, fp8, 12);
  const numbers = random(13);
  const shared = randomTokens(numbers, fp8, 6);
  const own = randomTokens(numbers, fp8, 3);
  const sequence = cache.createSequence();
  extend(cache, sequence, shared, fp8);
  const twin = sequence.fork();
  const alone = cache.createSequence();
  extend(cache, alone, own, fp8);
  const sequences = [sequence, twin, alone];
  const before = seen(cache, sequences);
  const added = [1, 9, 3].map((count) => randomTokens(numbers, fp8, count));
  const { key, value } = concatenate(added);
  const begin = () => cache.begin(sequences.map((each, s) => ({ sequence: each, tokens: [1, 9, 3][s] })));
  for (const layers of [0, 1, 2]) {
    const step = begin();
    is(cache.freePages, before.freePages - 5, 'two copies, two more pages for the twin, one for the third');
    for (let layer = 0; layer < layers; layer++) step.append(layer, key, value);
    if (layers > 0) step.attendSync(0, numbers.normals(13 * 32));
    step.abort();
    step.abort();
    assertSeen(cache, sequences, before);
  }
  begin()[Symbol.dispose]();
  assertSeen(cache, sequences, before);
  const step = begin();
  appendToAll(cache, step, { key, value });
  step.commit();
  step[Symbol.dispose]();
  sequences.forEach((each, s) => assertHolds(backend, cache, each, concatenate([s < 2 ? shared : own, added[s]]), fp8, `sequence ${s}`));
  cache.dispose();
});

test('a copy made for a step is not undone by what the other owner does meanwhile', () => {
  const cache = cacheOf(backend, fp8, 6);
  const numbers = random(14);
  const [shared, a, b] = [6, 1, 2].map((count) => randomTokens(numbers, fp8, count));
  for (const commits of [true, false]) {
    const sequence = cache.createSequence();
    extend(cache, sequence, shared, fp8);
    const twin = sequence.fork();
    const step = cache.begin([{ sequence, tokens: 1 }]);
    appendToAll(cache, step, a);
    extend(cache, twin, b, fp8);
    if (commits) step.commit();
    else step.abort();
    assertHolds(backend, cache, sequence, commits ? concatenate([shared, a]) : shared, fp8, 'the first');
    assertHolds(backend, cache, twin, concatenate([shared, b]), fp8, 'the twin');
    is(cache.freePages, 3);
    sequence.free();
    twin.free();
    is(cache.freePages, 6);
  }
  cache.dispose();
});
