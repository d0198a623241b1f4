/**
 * uvu's suites, without its ways of passing silently: hooks that throw are failures, every test has a time-out, and a
 * suite needs no `.run()` that could be forgotten, since the runner runs all that a file has made.
 */
import { suite as uvuSuite } from 'uvu';

type Body = () => void | Promise<void>;

export interface Suite {
  (name: string, body: Body, options?: { seconds?: number }): void;
  before(body: Body): void;
  after(body: Body): void;
}

export interface RegisteredSuite {
  readonly name: string;
  /** Tests registered. */
  tests: number;
  /** Why none of them can run here. */
  readonly skip?: string;
  /** Whether that is fine also where a GPU is required. */
  readonly optional: boolean;
  /** What hooks threw; uvu itself drops it. */
  readonly hookErrors: unknown[];
  /** Hands the suite to uvu's queue. */
  readonly enqueue: () => void;
}

/** Suites made since the runner last looked. */
export const registered: RegisteredSuite[] = [];

const DEFAULT_SECONDS = 60;
/** Hooks bundle pages, start browsers and install packages: what only hangs is found later. */
const HOOK_SECONDS = 300;

async function withTimeout(name: string, seconds: number, body: Body): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`"${name}" took longer than ${seconds} s`)), seconds * 1000);
  });
  try {
    await Promise.race([body(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Told of each test before it begins, and waited for: whoever watches from outside then knows what a hang or a crash is about. */
export const watcher = { began: async (_test: string, _seconds: number): Promise<void> => {} };

export interface SuiteOptions {
  /** Why its tests cannot run here: there is no adapter, or no Redis. They count as skipped, or as failed where `REQUIRE_GPU=1`. */
  readonly skip?: string;
  /** Whether they count as skipped there, too: what they need is not in every place where all is tested. Default false. */
  readonly optional?: boolean;
}

export function suite(name: string, { skip, optional = false }: SuiteOptions = {}): Suite {
  const inner = uvuSuite(name);
  const entry: RegisteredSuite = { name, tests: 0, skip, optional, hookErrors: [], enqueue: () => inner.run() };
  registered.push(entry);
  const test = (testName: string, body: Body, { seconds = DEFAULT_SECONDS } = {}): void => {
    entry.tests++;
    inner(testName, async () => {
      await watcher.began(`${name}, "${testName}"`, seconds);
      await withTimeout(testName, seconds, body);
    });
  };
  const guarded = (kind: 'before' | 'after', body: Body): Body => async () => {
    try {
      await withTimeout(`${name}: ${kind}`, HOOK_SECONDS, body);
    } catch (error) {
      entry.hookErrors.push(error);
      // Thrown on, a failing `before` keeps uvu from running the tests, and a failing `after` ends the process.
      if (kind === 'before') throw error;
    }
  };
  test.before = (body: Body) => inner.before(guarded('before', body));
  test.after = (body: Body) => inner.after(guarded('after', body));
  return test;
}
