import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { readTokenizer, readWeights } from '../../src/model/folder.js';
import { LlamaRunner } from '../../src/model/llama.js';
import { assertSameBits } from '../bits.js';
import { suite } from '../suite.js';
import { orator } from './orator.js';
import { PlainAttention } from './plain-attention.js';

const test = suite('model/llama');

const runner = new LlamaRunner(readWeights(orator));
const tokens = (await readTokenizer(orator)).encode(readFileSync(`${orator}/eval.txt`, 'utf8').slice(0, 4000));

/** Logits of the tokens, given to the runner in chunks. */
async function logitsInChunks(input: number[], chunk: number): Promise<Float32Array> {
  const { vocab } = runner.config;
  const cache = new PlainAttention(runner.config);
  const logits = new Float32Array(input.length * vocab);
  for (let start = 0; start < input.length; start += chunk) {
    logits.set(await runner.forward(input.slice(start, start + chunk), start, cache), start * vocab);
  }
  return logits;
}

/** −ln of the probability that a row of logits gives to a token. */
function loss(logits: Float32Array, target: number): number {
  const top = logits.reduce((max, logit) => Math.max(max, logit));
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
  return top + Math.log(total) - logits[target];
}

test('prefill, chunks and token by token give the same bits', async () => {
  const input = tokens.slice(0, 67);
  const whole = await logitsInChunks(input, input.length);
  assertSameBits(await logitsInChunks(input, 1), whole, 'token by token');
  assertSameBits(await logitsInChunks(input, 7), whole, 'chunks of 7');
});

test('loses as much on held-out text as a float64 forward pass', async () => {
  const { vocab } = runner.config;
  const count = 256;
  const logits = await logitsInChunks(tokens.slice(0, count), count);
  let sum = 0;
  for (let i = 0; i + 1 < count; i++) sum += loss(logits.subarray(i * vocab, (i + 1) * vocab), tokens[i + 1]);
  const mean = sum / (count - 1);
  // From the same model written in NumPy, all in float64.
  assert.ok(Math.abs(mean - 3.2458495) < 1e-5, `got ${mean} nats per token`);
});

test('a context of any size costs nothing where sequences are shorter', async () => {
  const weights = readWeights(orator);
  const short = new LlamaRunner({ ...weights, config: { ...weights.config, context: 2 ** 40 } }, 8, 8);
  const input = tokens.slice(0, 8);
  assertSameBits(await short.forward(input, 0, new PlainAttention(runner.config)), await logitsInChunks(input, 8));
  const error = await short.forward([1], 8, new PlainAttention(runner.config)).catch((reason: unknown) => reason);
  assert.match(String(error), /"position" expected 0 to 7 \(1 tokens in a context of 8\), got 8/);
});

test('refuses what no WebAssembly memory holds, before it is made', () => {
  const weights = readWeights(orator);
  const refusal = /expected at most 4 GiB, got \d+\.\d GiB or more/;
  assert.throws(() => new LlamaRunner(weights, 2 ** 40), refusal);
  assert.throws(() => new LlamaRunner(weights, 8, 2 ** 40), refusal);
});

test('refuses tokens and positions that it has no room for', async () => {
  const cache = new PlainAttention(runner.config);
  const refused = async (input: number[], position: number, message: RegExp): Promise<void> => {
    const error = await runner.forward(input, position, cache).catch((reason: unknown) => reason);
    assert.match(String(error), message);
  };
  await refused([], 0, /"tokens" expected 1 to 256 tokens, got 0/);
  await refused([1024], 0, /"tokens" expected ids below 1024, got 1024 at 0/);
  await refused([1, 2], 255, /"position" expected 0 to 254/);
});
