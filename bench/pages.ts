/** Pages in an order as if many sequences had come and gone. */
import { random } from '../tests/random.js';
import { SEED } from './inputs.js';

/** Tokens per page. */
export const BLOCK = 16;

/** The pages of a sequence of that many tokens, in order. */
export function shuffledBlocks(tokens: number): Int32Array {
  const numbers = random(SEED);
  const order = Int32Array.from({ length: Math.ceil(tokens / BLOCK) }, (_, i) => i);
  for (let i = order.length - 1; i > 0; i--) {
    const j = numbers.integer(i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

/** Where each token goes. */
export function slotsOf(blocks: Int32Array, tokens: number): Int32Array {
  return Int32Array.from({ length: tokens }, (_, token) => blocks[Math.floor(token / BLOCK)] * BLOCK + (token % BLOCK));
}
