/** `npm run bench:gpu [-- BENCH … --small|--large --features A,B --markdown --json FILE]`: the benches of the GPU, or those that are named. */
import { benches, runBenches } from './runner.js';

await runBenches(benches.gpu);
