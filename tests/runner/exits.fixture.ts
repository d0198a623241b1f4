/** A test that ends the process: run by run.test.ts only. */
import { suite } from '../suite.js';

const test = suite('exits');
test('with success', () => process.exit(0));
