/** How long does causal attention of a whole prompt take on the GPU, for each cache format? */
import { raceAttention } from './gpu/attention.js';
import { openBench, reportGpu } from './gpu/bench.js';
import { prefillCases } from './gpu/shapes.js';

const bench = await openBench();
reportGpu(bench, 'GPU prefill: a prompt, causal', await raceAttention(bench, prefillCases[bench.size]));
