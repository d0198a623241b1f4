/** The report as a browser shows it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { equal, is, not, ok } from 'uvu/assert';
import { contrast } from '../browser/contrast.js';
import { openPage, type Page } from '../browser/devtools.js';
import { renderReport } from '../../src/evaluate/report/page.js';
import { suite } from '../suite.js';
import { evaluation } from './fixture.js';

const test = suite('report in a browser');
const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-report-'));
let page: Page;

/** The address of a page with this text. */
function stored(name: string, html: string): string {
  const path = join(folder, name);
  writeFileSync(path, html);
  return pathToFileURL(path).href;
}

const orator = stored('orator.html', renderReport(evaluation()));
const large = stored('large.html', renderReport(evaluation({ name: '<b>large</b>', layers: 80, queryHeads: 64, kvHeads: 8, headDim: 128 }, 1500)));

test.before(async () => {
  page = await openPage();
});
test.after(async () => {
  await page.close();
  rmSync(folder, { recursive: true });
});

/** Opens a page as wide as most, by daylight, or as is said. */
async function open(url: string, look: Parameters<Page['look']>[0] = {}): Promise<void> {
  page.problems.length = 0;
  await page.look({ width: 1200, scheme: 'light', scripts: true, ...look });
  await page.open(url);
}

test('a page that throws, complains or breaks its policy is heard', async () => {
  await open(stored('bad.html', `<meta http-equiv="Content-Security-Policy" content="img-src data:"><img src="x.png"><script>console.error(1); throw new Error('thrown')</script>`));
  is(page.problems.length, 3, page.problems.join('\n'));
});

for (const [name, url] of [['small', orator], ['large', large]]) {
  test(`${name}: no complaint, and nothing wider than a screen of 360 pixels`, async () => {
    for (const scripts of [true, false]) {
      await open(url, { width: 360, scripts });
      // What scrolls in its own box may be wider.
      const wide = await page.evaluate<string[]>(`[...document.body.querySelectorAll('*')]
        .filter((element) => !element.parentElement.closest('.scroll') && element.getBoundingClientRect().right > document.documentElement.clientWidth)
        .map((element) => element.outerHTML.slice(0, 80))`);
      equal(wide, []);
      is(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true);
      equal(page.problems, []);
    }
  });
}

const means = `[...document.querySelectorAll('#variants tbody tr')].map((row) => Number(row.cells[5].dataset.value))`;

test('the table is sorted by keyboard, the reference on top', async () => {
  await open(orator);
  await page.evaluate(`document.querySelectorAll('thead button')[4].focus()`);
  await page.press('Tab');
  is(await page.evaluate(`document.activeElement.textContent`), 'KL,\u00a0mean');
  await page.press('Enter');
  const [reference, ...rest] = await page.evaluate<number[]>(means);
  is(reference, 0);
  equal(rest, [...rest].sort((a, b) => a - b));
  is(await page.evaluate(`document.activeElement.parentElement.ariaSort`), 'ascending');
  await page.press('Enter');
  equal((await page.evaluate<number[]>(means)).slice(1), rest.reverse());
  is(await page.evaluate(`document.querySelectorAll('[aria-sort]').length`), 1);
  equal(page.problems, []);
});

const shown = `[...document.querySelectorAll('.picture')].filter((picture) => picture.checkVisibility()).map((picture) => picture.querySelector('h3').textContent)`;

test('a variant is chosen by keyboard, and its cells are read out', async () => {
  await open(large);
  equal(await page.evaluate(shown), ['int8, token-head']);
  await page.evaluate(`document.getElementById('variant').value = 'errors-0'; document.getElementById('variant').focus()`);
  await page.press('ArrowDown');
  equal(await page.evaluate(shown), ['e4m3fn, tensor, scale 1']);
  await page.press('Tab');
  const { headErrors } = evaluation({ layers: 80, kvHeads: 8 }).variants[2];
  const readout = (): Promise<string> => page.evaluate(`document.getElementById('readout').textContent`);
  const said = (layer: number, head: number): string => `K, layer ${layer}, head ${head}: ${(100 * headErrors!.k[layer][head]).toPrecision(3)} %`;
  // On its way lies the box that the grid scrolls in, where that is narrow.
  is(await readout(), said(0, 0));
  await page.press('ArrowRight');
  await page.press('ArrowDown');
  is(await readout(), said(1, 1));
  equal(page.problems, []);
});

test('without a script all variants are shown', async () => {
  await open(orator, { scripts: false });
  is((await page.evaluate<string[]>(shown)).length, 16);
  is(await page.evaluate(`document.querySelector('.choose').checkVisibility() || document.querySelector('.readout').checkVisibility()`), false);
});

test('light and dark differ, and both can be read', async () => {
  const backgrounds = [];
  for (const scheme of ['light', 'dark'] as const) {
    // Without a script, to see all variants' digits.
    await open(orator, { scheme, scripts: false });
    const { texts, background, bad } = await contrast(page);
    ok(texts > 400, `${texts} texts`);
    equal(bad, []);
    backgrounds.push(background);
  }
  not.equal(backgrounds[0], backgrounds[1]);
});
