/** The runner in the page: runs the suites, and reports to the server that the page comes from. */
import type { Run } from '../runner/loop.js';
import type { Report } from './report.js';

let run: Run | undefined;
let sent: Promise<unknown> = Promise.resolve();

/** One message at a time: parallel requests may overtake each other. */
function report(message: Omit<Report, 'totals'>): Promise<unknown> {
  const body = JSON.stringify({ totals: run?.totals ?? { passed: 0, failed: 0, skipped: 0 }, ...message } satisfies Report);
  sent = sent.then(() => fetch('/report', { method: 'POST', body }));
  return sent;
}

/** Runs the test files; `load` imports each from the bundle. */
export async function runFiles(load: Record<string, () => Promise<unknown>>, requireGpu: boolean): Promise<void> {
  // Never answered to the end: when it breaks off, the server knows that the page is gone.
  void fetch('/alive').then((response) => response.text());
  const { log } = console;
  // uvu prints with what console.log is when it loads.
  console.log = (print: string) => void report({ print });
  const loop = await import('../runner/loop.js');
  const { watcher } = await import('../suite.js');
  console.log = log;
  run = new loop.Run({ requireGpu, print: (line) => void report({ print: `${line}\n` }), complain: (complain) => void report({ complain }) });
  // In Node these end the process.
  for (const type of ['error', 'unhandledrejection'] as const) {
    addEventListener(type, (event) => {
      const error = event instanceof ErrorEvent ? event.error : (event as PromiseRejectionEvent).reason;
      run!.fail(1, `outside of any test: ${error?.stack ?? String(error)}`);
    });
  }
  watcher.began = async (test, seconds) => void (await report({ began: { test, seconds } }));
  for (const [file, loadFile] of Object.entries(load)) {
    await report({ print: `\n${file}, in Chromium\n` });
    await run.file(file, loadFile);
  }
  await report({ ended: true });
}
