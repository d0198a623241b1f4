/** A suite that has no adapter, beside one that needs none: run by run.test.ts only. */
import { suite } from '../suite.js';

const without = suite('needs a GPU', { skip: 'there is none' });
without('is never reached', () => {
  throw new Error('reached');
});
without('nor is this', () => {});

suite('needs nothing')('passes', () => {});
