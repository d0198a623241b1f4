/** How long does causal attention of a prompt of 1,024 tokens take, for each shape and cache format, and what share is that of the ceiling? */
import { raceFormats } from './format-race.js';
import { report } from './harness.js';

report('Prefill: 1,024 tokens, causal', await raceFormats(0, 1024, 4));
