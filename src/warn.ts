/** What goes on although something is not as it should be is said here: to whoever listens, else to the console. */
import { describe } from './formats.js';

/** Is told of each warning, a text of one line. */
export type WarningListener = (message: string) => void;

const listeners = new Set<WarningListener>();

/**
 * Hears all warnings of this package from now on, which then do not go to the console.
 * @returns what ends it
 * @throws TypeError for what is no function
 */
export function onWarning(listener: WarningListener): () => void {
  if (typeof listener !== 'function') throw new TypeError(`"listener" expected a function, got ${describe(listener)}`);
  // An object of its own: the same function may listen twice.
  const own: WarningListener = (message) => listener(message);
  listeners.add(own);
  return () => void listeners.delete(own);
}

export function warn(message: string): void {
  if (listeners.size === 0) console.warn(`fp8-kv: ${message}`);
  for (const listener of listeners) tell(listener, message);
}

/** What went on is in the middle of something, which an error of a listener would leave half done. */
function tell(listener: WarningListener, message: string): void {
  try {
    listener(message);
  } catch (error) {
    console.error('fp8-kv: a listener of warnings threw', error);
  }
}
