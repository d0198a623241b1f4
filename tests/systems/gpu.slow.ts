/** Every combination of the grids; `npm test` takes a sixteenth of the largest on the GPU. */
import { testOnGpu } from './on-gpu.js';

testOnGpu({ whole: true });
