/** The loop that runs suites and counts: the same in Node and in a page. Nothing may import uvu before it. */
import type { RegisteredSuite } from '../suite.js';

type UvuRunner = () => Promise<[errors: string | true, passed: number, skipped: number, total: number]>;
const uvu = globalThis as unknown as { UVU_DEFER: boolean; UVU_QUEUE: UvuRunner[][]; UVU_INDEX: number };
// Set before uvu loads: it then leaves the running to us.
uvu.UVU_DEFER = true;
uvu.UVU_QUEUE = [[]];
uvu.UVU_INDEX = 0;
const { registered } = await import('../suite.js');

export interface Totals {
  passed: number;
  failed: number;
  skipped: number;
}

/** The last line of every run. */
export function summary({ passed, failed, skipped }: Totals): string {
  return `\n${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** What a run's last line says, if it is one. */
export function totalsOf(output: string): Totals | undefined {
  const counts = /(\d+) passed, (\d+) failed, (\d+) skipped\n$/.exec(output);
  return counts ? { passed: Number(counts[1]), failed: Number(counts[2]), skipped: Number(counts[3]) } : undefined;
}

export const sum = (a: Totals, b: Totals): Totals => ({ passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped });

/** Seconds from which on a run says how long a suite took. */
const LONG = 5;

export interface RunOptions {
  /** Whether a suite that says it must be skipped has failed. */
  readonly requireGpu: boolean;
  readonly print: (line: string) => void;
  readonly complain: (reason: string) => void;
}

export class Run {
  readonly totals: Totals = { passed: 0, failed: 0, skipped: 0 };

  constructor(private readonly options: RunOptions) {}

  fail(count: number, reason: string): void {
    this.totals.failed += count;
    this.options.complain(reason);
  }

  skip(count: number, reason: string): void {
    this.totals.skipped += count;
    this.options.print(`${count} skipped: ${reason}`);
  }

  /** What was counted elsewhere, and reported there. */
  add(totals: Totals): void {
    Object.assign(this.totals, sum(this.totals, totals));
  }

  /** Loads one file, which makes its suites, and runs them. */
  async file(name: string, load: () => Promise<unknown>): Promise<void> {
    try {
      await load();
    } catch (error) {
      this.fail(1, `${name} did not load: ${(error as Error)?.stack ?? String(error)}`);
    }
    const suites = registered.splice(0);
    if (suites.length === 0) this.fail(1, `${name} has no suite`);
    for (const suite of suites) await this.suite(suite);
  }

  private async suite(suite: RegisteredSuite): Promise<void> {
    const { name, tests, skip, optional, hookErrors } = suite;
    if (tests === 0) return this.fail(1, `suite "${name}" has no test`);
    if (skip !== undefined) return this.options.requireGpu && !optional ? this.fail(tests, `suite "${name}" may not be skipped: ${skip}`) : this.skip(tests, `suite "${name}", ${skip}`);
    const start = performance.now();
    suite.enqueue();
    const [errors, ran, skipped, total] = await uvu.UVU_QUEUE[0].shift()!();
    const seconds = Math.round((performance.now() - start) / 1000);
    if (seconds >= LONG) this.options.print(`  ${seconds} s`);
    this.totals.passed += ran;
    const missing = tests - ran;
    if (missing > 0) this.fail(missing, errors === true ? '' : errors);
    if (total !== tests || skipped !== 0) this.fail(1, `suite "${name}" registered ${tests} tests, uvu saw ${total} and skipped ${skipped}`);
    for (const error of hookErrors) this.fail(missing > 0 ? 0 : 1, `suite "${name}", hook: ${(error as Error)?.stack ?? String(error)}`);
  }
}
