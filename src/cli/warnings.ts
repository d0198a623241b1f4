import { onWarning } from '../warn.js';

/** What work gives, and what it warns of, which then does not go to the console. */
export async function hearing<T>(work: () => Promise<T>): Promise<{ readonly result: T; readonly warnings: readonly string[] }> {
  const warnings: string[] = [];
  const end = onWarning((message) => void warnings.push(message));
  try {
    return { result: await work(), warnings };
  } finally {
    end();
  }
}
