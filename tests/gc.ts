/** Garbage collection at will, for what counts bytes or must not be timed with another's garbage. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

// The flag counts for contexts made after it is set: an `--expose-gc` on the command line is not needed.
setFlagsFromString('--expose-gc');
export const collectGarbage = runInNewContext('gc') as () => void;
