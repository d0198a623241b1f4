/** Each way of passing silently that the runner must turn into a failure: run by run.test.ts only. */
import { suite } from '../suite.js';

const hook = suite('before throws');
hook.before(() => {
  throw new Error('from a hook');
});
hook('is never reached', () => {});

const after = suite('after throws');
after.after(() => {
  throw new Error('from an after hook');
});
after('passes', () => {});

const late = suite('hangs');
late('never ends', () => new Promise(() => {}), { seconds: 0.2 });
late('passes', () => {});
late('fails', () => {
  throw new Error('as it should');
});

suite('empty');
