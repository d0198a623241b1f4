/** How long does attention of a decode step take on the GPU, for each cache format, and what share of a copy's bandwidth does it read with? */
import { raceAttention } from './gpu/attention.js';
import { openBench, reportGpu } from './gpu/bench.js';
import { decodeCases } from './gpu/shapes.js';

const bench = await openBench();
reportGpu(bench, 'GPU decode: one token of each sequence', await raceAttention(bench, decodeCases[bench.size]));
