/** `npm run bench [-- BENCH … --all --threads N,N --markdown --json FILE]`: the benches of the CPU, or those that are named. */
import { benches, runBenches } from './runner.js';

await runBenches(benches.cpu);
