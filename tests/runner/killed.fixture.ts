/** A test that a signal ends, as a crash of a driver would: run by run.test.ts only. */
import { suite } from '../suite.js';

const test = suite('killed');
test('passes', () => {});
test('by a signal', () => void process.kill(process.pid, 'SIGKILL'));
