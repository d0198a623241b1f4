/** What the page tells the runner, one message after the other. */
import type { Totals } from '../runner/loop.js';

export interface Report {
  /** As counted so far: what is known of a page that ends early. */
  readonly totals: Totals;
  readonly print?: string;
  readonly complain?: string;
  /** The test that begins now, and the time it may take. */
  readonly began?: { readonly test: string; readonly seconds: number };
  readonly ended?: true;
}
