import * as assert from 'uvu/assert';
import { openKernels } from '../../src/model/kernels.js';
import { MemoryPlan } from '../../src/model/memory-plan.js';
import { suite } from '../suite.js';

const test = suite('model/kernels');

/** The same numbers in (−1, 1) on every run. */
function noise(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

function setUp<Names extends string>(arrays: { readonly [N in Names]: Float32Array }) {
  const plan = new MemoryPlan();
  const names = Object.keys(arrays) as Names[];
  const at = Object.fromEntries(names.map((name) => [name, plan.place(arrays[name])])) as { [N in Names]: number };
  const memory = plan.build();
  const read = (name: Names): Float32Array => new Float32Array(memory.buffer, at[name], arrays[name].length);
  return { at, read, kernels: openKernels(memory) };
}

const largest = (values: Iterable<number>): number => Math.max(...values);

test('matmul is near a float64 one, for any number of rows and columns', () => {
  for (const [m, n, k] of [[1, 4, 4], [1, 7, 172], [2, 5, 8], [3, 16, 64], [25, 18, 36], [49, 64, 172]]) {
    const x = noise(m * k, 1);
    const w = noise(n * k, 2);
    // One element more, to see that nothing behind y is written.
    const { at, read, kernels } = setUp({ x, w, y: new Float32Array(m * n + 1).fill(7) });
    kernels.matmul(at.x, at.w, at.y, m, n, k);
    const y = read('y');
    for (let i = 0; i < m * n; i++) {
      const [row, column] = [Math.floor(i / n), i % n];
      let sum = 0;
      let size = 0;
      for (let l = 0; l < k; l++) {
        const product = x[row * k + l] * w[column * k + l];
        sum += product;
        size += Math.abs(product);
      }
      assert.ok(Math.abs(y[i] - sum) <= 1e-6 * size, `(${m}, ${n}, ${k}) at ${row}, ${column}: expected ${sum}, got ${y[i]}`);
    }
    assert.is(y[m * n], 7, 'behind y');
  }
});

test('rmsnorm, rope and siluMul are near float64 ones', () => {
  const [rows, dim] = [3, 16];
  const x = noise(rows * dim, 3);
  const weight = noise(dim, 4);
  const gate = Float32Array.from({ length: 4096 }, (_, i) => (i - 2048) / 16);
  const up = noise(gate.length, 5);
  const table = noise(rows * dim, 6);
  const { at, read, kernels } = setUp({ x, weight, normed: new Float32Array(rows * dim), gate, up, table, turned: x });

  kernels.rmsnorm(at.x, at.weight, at.normed, rows, dim, 1e-5);
  const normed = x.map((value, i) => {
    const row = x.subarray(i - (i % dim), i - (i % dim) + dim);
    return (value / Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / dim + 1e-5)) * weight[i % dim];
  });
  assert.ok(largest(read('normed').map((value, i) => Math.abs(value - normed[i]))) < 1e-6, 'rmsnorm');

  kernels.rope(at.turned, at.table, rows, 1, dim);
  const half = dim / 2;
  const turned = x.map((value, i) => {
    const pair = i % half;
    const row = i - (i % dim);
    const [cos, sin] = [table[row + pair], table[row + half + pair]];
    return i % dim < half ? value * cos - x[i + half] * sin : value * cos + x[i - half] * sin;
  });
  assert.ok(largest(read('turned').map((value, i) => Math.abs(value - turned[i]))) < 1e-6, 'rope');

  kernels.siluMul(at.gate, at.up, gate.length);
  const errors = read('gate').map((value, i) => {
    const expected = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
    return Math.abs(value - expected) / Math.max(Math.abs(expected), 1e-28);
  });
  assert.ok(largest(errors) < 1e-6, `siluMul is off by ${largest(errors)}`);
});
