/** Seeded random numbers; a test that fails prints its seed. */
export { random, type Random } from '../src/align/random.js';
