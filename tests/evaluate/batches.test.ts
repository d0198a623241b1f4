import { equal, is } from 'uvu/assert';
import type { CacheObserver } from '../../src/cache/observer.js';
import { Batches } from '../../src/evaluate/batches.js';
import { suite } from '../suite.js';

const test = suite('evaluate/batches');

const shapes = [{ kvHeads: 1, headDim: 2, queryHeads: 2 }, { kvHeads: 1, headDim: 2, queryHeads: 2 }];

/** Notes what it is shown. */
function recorder(): CacheObserver & { readonly seen: [string, number, number[]][] } {
  const seen: [string, number, number[]][] = [];
  return {
    shapes, seen,
    observe: (layer, key, value) => void seen.push(['k', layer, [...key]], ['v', layer, [...value]]),
    observeQuery: (layer, q) => void seen.push(['q', layer, [...q]]),
  };
}

test('tokens are shown in batches, of each layer by itself, the rest at the end, with a pause after each', async () => {
  const observers = [recorder(), recorder()];
  const batches = new Batches(observers, 3);
  let pauses = 0;
  const pause = (): void => void pauses++;
  const reused = new Float32Array(4);
  for (let step = 0; step < 3; step++) {
    for (const layer of [0, 1]) {
      reused.set([step, layer, step, layer]);
      batches.observe(layer, reused, reused.map((x) => -x));
      batches.observeQuery(layer, Float32Array.of(step, step, step, step));
    }
    await batches.showFull(pause);
  }
  await batches.showAll(pause);
  await batches.showAll(pause);
  // Two observers, two layers: two batches of keys and values, and one of queries.
  is(pauses, 2 * 2 * 3);
  for (const { seen } of observers) {
    // Two tokens a step: three are reached with the second.
    equal(seen.filter(([what, layer]) => what === 'k' && layer === 1), [['k', 1, [0, 1, 0, 1, 1, 1, 1, 1]], ['k', 1, [2, 1, 2, 1]]]);
    equal(seen.filter(([what, layer]) => what === 'v' && layer === 0), [['v', 0, [-0, -0, -0, -0, -1, -0, -1, -0]], ['v', 0, [-2, -0, -2, -0]]]);
    // A token has two query heads.
    equal(seen.filter(([what, layer]) => what === 'q' && layer === 0), [['q', 0, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]]]);
    is(seen.length, 2 * (2 * 2 + 1));
  }
});

test('what a pause throws ends the showing', async () => {
  const observers = [recorder(), recorder()];
  const batches = new Batches(observers, 1);
  batches.observe(0, new Float32Array(2), new Float32Array(2));
  is(await batches.showFull(() => Promise.reject(new Error('enough'))).catch((error: Error) => error.message), 'enough');
  equal(observers.map(({ seen }) => seen.length), [2, 0]);
});
