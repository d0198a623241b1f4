/** What goes on although something is not as it should be is said here: to whoever listens, else to the console. */

export type WarningListener = (message: string) => void;

const listeners = new Set<WarningListener>();

/**
 * Hears all warnings of this package from now on, which then do not go to the console.
 * @returns what ends it
 */
export function onWarning(listener: WarningListener): () => void {
  // An object of its own: the same function may listen twice.
  const own: WarningListener = (message) => listener(message);
  listeners.add(own);
  return () => void listeners.delete(own);
}

export function warn(message: string): void {
  if (listeners.size === 0) console.warn(`fp8-kv: ${message}`);
  for (const listener of listeners) listener(message);
}
