/** Tunings that tests vary. */
import { defaultTuning, type Tuning } from '../../src/webgpu/tuning.js';

/** The tuning of an adapter that nobody knows, but for what is stated. */
export const tuningOf = (changes: Partial<Tuning>): Tuning => ({ ...defaultTuning({ vendor: '', architecture: '' }), ...changes });
