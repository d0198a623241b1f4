/** A test that leaves its page, which looks like a crash from outside: run by run.test.ts only. */
import { suite } from '../../suite.js';

suite('stays')('passes', () => {});

suite('leaves')('for another page', () => {
  if (typeof location === 'undefined') return;
  location.assign('about:blank');
  return new Promise<void>(() => {});
});
