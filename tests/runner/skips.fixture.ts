/** A suite that has no adapter, one that lacks what need not be there, and one that needs nothing: run by run.test.ts only. */
import { suite } from '../suite.js';

const without = suite('needs a GPU', { skip: 'there is none' });
without('is never reached', () => {
  throw new Error('reached');
});
without('nor is this', () => {});

suite('needs a rarity', { skip: 'it is rare', optional: true })('is not reached either', () => {
  throw new Error('reached');
});

suite('needs nothing')('passes', () => {});
