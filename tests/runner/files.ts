/** What `tests/run.ts` starts once the environment is as WebGPU needs it: runs the test files here, then those of the GPU in Chromium. */
import { readdirSync } from 'node:fs';
import { sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { runInChromium } from '../browser/run.js';
import { packaged } from '../gpu/unpack.js';
import { Run, summary } from './loop.js';

const { values: options, positionals: parts } = parseArgs({
  options: { kind: { type: 'string', default: 'test' }, 'no-browser': { type: 'boolean', default: false }, only: { type: 'string' } },
  allowPositionals: true,
});
const root = fileURLToPath(new URL('..', import.meta.url));
const suffix = `.${options.kind}.ts`;
const files = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .map((file) => file.split(sep).join('/'))
  .filter((file) => file.endsWith(suffix) && (parts.length === 0 || parts.some((part) => file.includes(part))))
  .sort();

const requireGpu = process.env.REQUIRE_GPU === '1';
const run = new Run({ requireGpu, print: console.log, complain: console.error });
let finished = false;

// A test that ends the process, or leaves nothing to wait for, must not look like success.
process.on('exit', () => {
  if (finished) return;
  process.exitCode = 1;
  run.fail(1, 'the process ended before the tests did');
  console.log(summary(run.totals));
});

/** The part of a whole run that a file belongs to: those for pages, too, are apart from what else uses a GPU. Files named browser.… look at a page from Node. */
const partOf = (file: string): string => (/(^|\/)webgpu\//.test(file) ? 'webgpu' : /(^|\/)gpu\./.test(file) ? 'gpu' : /(^|\/)browser\./.test(file) ? 'browser' : 'cpu');

const noChromium = `Chromium, which comes with the package @sparticuz/chromium for linux-x64 only; this is ${process.platform}-${process.arch}`;

if (files.length === 0) run.fail(1, `no test file matches ${parts.join(' ') || suffix}`);
for (const file of files) {
  if (options.only !== undefined && options.only !== partOf(file)) continue;
  if (partOf(file) === 'browser' && options['no-browser']) continue;
  console.log(`\n${file}`);
  if (partOf(file) === 'browser' && !packaged) {
    run.skip(1, `a file that needs ${noChromium}`);
    continue;
  }
  await run.file(file, () => import(pathToFileURL(root + file).href));
}
const pageFiles = files.filter((file) => partOf(file) === 'webgpu');
if (pageFiles.length > 0 && !options['no-browser'] && (options.only ?? 'browser') === 'browser') {
  if (packaged) await runInChromium(pageFiles, run, requireGpu).catch((error: Error) => run.fail(1, `Chromium could not run the tests: ${error.stack}`));
  else run.skip(pageFiles.length, `files for ${noChromium}`);
}
finished = true;
console.log(summary(run.totals));
process.exitCode = run.totals.failed === 0 ? 0 : 1;
