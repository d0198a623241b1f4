/** Runs test files in Chromium. A page that dies, hangs or reports nothing is a failure. */
import { stripVTControlCharacters } from 'node:util';
import type { Run, Totals } from '../runner/loop.js';
import { bundle } from './bundle.js';
import { openChromium } from './chromium.js';
import { serve } from './server.js';

/** The longest silence, beyond the time that a test has: hooks have a minute. */
const PATIENCE = 90;

/** Adds what Chromium counts to the run. */
export async function runInChromium(files: readonly string[], run: Run, requireGpu: boolean): Promise<void> {
  const { script, locate } = await bundle(files, requireGpu);
  const shown = (text: string): string => (process.stdout.isTTY ? text : stripVTControlCharacters(text));
  let totals: Totals | undefined;
  let last = 'before any test';
  let finish: (problem?: string) => void;
  const finished = new Promise<string | undefined>((resolve) => {
    finish = resolve;
  });
  let timer: NodeJS.Timeout | undefined;
  const listenFor = (seconds: number): void => {
    clearTimeout(timer);
    timer = setTimeout(() => finish(`the page was silent for ${seconds} s`), seconds * 1000);
  };
  const server = await serve(script, {
    onReport(report) {
      totals = report.totals;
      if (report.print !== undefined) process.stdout.write(shown(report.print));
      if (report.complain !== undefined) console.error(shown(locate(report.complain)));
      if (report.began !== undefined) last = `last in ${report.began.test}`;
      if (report.ended) finish();
      listenFor(PATIENCE + (report.began?.seconds ?? 0));
    },
    onGone: () => finish('the page is gone'),
  });
  try {
    listenFor(PATIENCE);
    const chromium = await openChromium(server.url);
    void chromium.ended.then(() => finish('Chromium has ended'));
    const problem = await finished;
    await chromium.close();
    if (totals !== undefined) run.add(totals);
    if (problem !== undefined) run.fail(1, `${problem}, ${last}\n${await chromium.ended}`);
  } finally {
    clearTimeout(timer);
    server.close();
  }
}
