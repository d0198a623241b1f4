/** The page as a browser shows it: real clicks and keys, and what comes of them against what Node computes. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { equal, is, match, not, ok } from 'uvu/assert';
import { build, createServer } from 'vite';
import { variants } from '../../demo/web/caches.js';
import { contrast } from '../browser/contrast.js';
import { openPage, type Page } from '../browser/devtools.js';
import { orator } from '../model/orator.js';
import { suite } from '../suite.js';
import { compareInNode, runner } from './orator.js';
import { serveSite, type Site } from './site.js';

const test = suite('web page in a browser');
const root = fileURLToPath(new URL('../..', import.meta.url));
const configFile = join(root, 'demo/web/vite.config.ts');
const pictures = join(root, 'build/pictures');
const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-web-'));
const PROMPT = 'The whale, in the judgment of the Congress, is';
let page: Page;
let site: Site;

test.before(async () => {
  await build({ configFile, build: { outDir: join(folder, 'site') }, logLevel: 'silent' });
  site = await serveSite(join(folder, 'site'));
  mkdirSync(pictures, { recursive: true });
  page = await openPage();
  await page.look({ width: 1200, scheme: 'light' });
});
test.after(async () => {
  await page.close();
  site.close();
  rmSync(folder, { recursive: true });
});

/** A test, and that the page did not complain in it. */
const check = (name: string, body: () => Promise<void>): void =>
  test(name, async () => {
    page.problems.length = 0;
    await body();
    equal(page.problems, []);
  });

const textOf = (id: string): Promise<string> => page.evaluate(`document.getElementById('${id}').textContent`);
const numberOf = (id: string): Promise<number> => page.evaluate(`Number(document.querySelector('#${id} data').value)`);
const loaded = `document.getElementById('status').textContent.endsWith('is loaded.')`;
const status = `document.getElementById('status').textContent`;
const problem = `!document.getElementById('problem').hidden`;

/** Makes a select have a value, by its arrow keys. */
async function choose(id: string, value: string): Promise<void> {
  const at = await page.evaluate<[number, number]>(`(() => {
    const select = document.getElementById('${id}');
    select.focus();
    return [select.selectedIndex, [...select.options].findIndex((option) => [option.value, option.text].includes(${JSON.stringify(value)}))];
  })()`);
  for (let i = at[0]; i !== at[1]; i += Math.sign(at[1] - at[0])) await page.press(at[1] > at[0] ? 'ArrowDown' : 'ArrowUp');
}

/** Writes into a field, in place of what is there. */
async function write(id: string, text: string): Promise<void> {
  await page.evaluate(`document.getElementById('${id}').focus(); document.getElementById('${id}').select()`);
  await page.type(text);
}

async function run(caches: readonly [string, string], tokens: number): Promise<void> {
  await choose('cache-a', caches[0]);
  await choose('cache-b', caches[1]);
  await write('tokens', `${tokens}`);
  await page.click('#run');
  await page.until(`${status}.startsWith('Done') || ${problem}`);
  // Figures are written with the next picture.
  await page.evaluate(`new Promise((resolve) => requestAnimationFrame(() => resolve()))`);
}

check('a loading shows how far it is, and can be cancelled, and begun again', async () => {
  const bytes = statSync(`${orator}/model.safetensors`).size;
  site.hold(bytes / 4);
  await page.open(site.url);
  await page.until(`document.getElementById('progress').value > ${bytes / 5}`);
  ok(await page.evaluate(`document.getElementById('progress').value < ${bytes / 2} && document.getElementById('progress').max > ${bytes}`));
  match(await textOf('amount'), /^1\.\d MB of 5\.\d MB$/);
  is(await page.evaluate(`document.getElementById('run').disabled`), true);
  await page.click('#cancel');
  await page.until(`${status} === 'Cancelled.'`);
  equal(await page.evaluate(`['run', 'cancel', 'load-orator'].map((id) => document.getElementById(id).disabled)`), [true, true, false]);
  site.release();
  await page.click('#load-orator');
  await page.until(loaded);
  match(await textOf('model'), /^orator: 4 layers, 2 KV heads of 64, context 256; 5\.\d MB, ready after \d+\.\d\d s$/);
});

check('both texts, where they part, KL, memory and the errors are what Node computes', async () => {
  const caches = ['f32', 'e5m2, scale 1'] as const;
  const expected = await compareInNode(caches, PROMPT, 32);
  await choose('backend', 'WebAssembly');
  await run(caches, 32);
  equal([await textOf('text-a'), await textOf('text-b')], expected.texts.map((text) => PROMPT + text));
  ok(expected.partedAt! > 1 && expected.partedAt! < 32);
  is(await textOf('parting'), `at token ${expected.partedAt}`);
  is(await page.evaluate(`${status}`), `Done: the texts part at token ${expected.partedAt}.`);
  is(await page.evaluate(`document.querySelector('#text-a .given').textContent`), PROMPT);
  const own = await page.evaluate<[string, string]>(`[...document.querySelectorAll('.own')].map((span) => span.textContent)`);
  const [common] = expected.texts.map((text, i) => text.slice(0, text.length - own[i].length));
  ok(own.every((text, i) => text.length > 0 && expected.texts[i] === common + text));
  match(await textOf('backend-used'), /^WebAssembly: it was asked for\./);

  // The last bits differ where one of the two has relaxed SIMD: and then what is on the edge of two codes.
  const near = (got: number, wanted: number): void => ok(Math.abs(got / wanted - 1) < 0.02, `${got}, ${wanted}`);
  near(await numberOf('kl-mean'), expected.kl.reduce((sum, kl) => sum + kl) / expected.kl.length);
  near(await numberOf('kl-most'), Math.max(...expected.kl));
  const tokens = expected.kl.length;
  match(await textOf('agreement'), new RegExp(`of ${tokens} tokens$`));
  for (const [i, side] of ['a', 'b'].entries()) {
    const bytes = expected.started.bytesPerToken[i];
    match(await textOf(`per-token-${side}`), new RegExp(`^${bytes.toLocaleString('en')} B`));
    match(await textOf(`total-${side}`), new RegExp(`^${((bytes * tokens) / 1000).toFixed(bytes * tokens < 1e5 ? 1 : 0)} kB${tokens} tokens$`));
    match(await textOf(`speed-${side}`), /^[\d,.]+tokens per second$/);
  }

  // Right, and down across layers: head 1 of layer 1.
  const { layers, kvHeads } = runner.config;
  await page.evaluate(`document.getElementById('map').focus()`);
  for (const key of ['ArrowRight', 'ArrowRight', 'ArrowDown', 'ArrowDown', 'ArrowDown'] as const) await page.press(key);
  const at = (position: number, layer: number, head: number): number => (position * layers + layer) * kvHeads + head;
  const readout = (): Promise<number> => numberOf('map-readout');
  match(await textOf('map-readout'), / Keys of B, layer 1, head 1, token 2 “.*”\. KL of what comes next: /);
  near(await readout(), expected.errors[1].k[at(2, 1, 1)]);
  await page.press('End');
  near(await readout(), expected.errors[1].k[at(tokens - 1, 1, 1)]);
  // The same cell of the values, and of the cache that loses nothing.
  await page.click('[name=map-part][value=v]');
  near(await readout(), expected.errors[1].v[at(tokens - 1, 1, 1)]);
  await page.click('[name=map-side][value="0"]');
  is(await readout(), 0);
  await page.evaluate(`document.querySelector('[name=map-side]').focus()`);
  await page.press('ArrowRight');
  const [x, y] = await page.evaluate<[number, number]>(`(() => {
    const { width, height } = document.getElementById('map').getBoundingClientRect();
    return [80 / width, 60 / height];
  })()`);
  await page.hover('#map', [x, y]);
  match(await textOf('map-readout'), / Values of B, layer 0, head 0, token 1 /);
  near(await readout(), expected.errors[1].v[at(1, 0, 0)]);
});

check('a run is cancelled by keyboard, and another begun: with calibrated scales', async () => {
  await write('tokens', '200');
  await page.evaluate(`document.getElementById('run').focus()`);
  await page.press('Enter');
  await page.until(`!document.getElementById('cancel').disabled && document.getElementById('text-a').textContent.length > ${PROMPT.length + 10}`);
  await page.evaluate(`document.getElementById('cancel').focus()`);
  await page.press('Space');
  await page.until(`${status} === 'Cancelled.' || ${status}.startsWith('Done')`);
  is(await page.evaluate(status), 'Cancelled.');
  const caches = ['e4m3fn, head, calibrated', 'int8, head, calibrated'] as const;
  const expected = await compareInNode(caches, PROMPT, 4);
  await run(caches, 4);
  equal([await textOf('text-a'), await textOf('text-b')], expected.texts.map((text) => PROMPT + text));
  const kl = expected.kl.reduce((sum, each) => sum + each) / expected.kl.length;
  ok(Math.abs((await numberOf('kl-mean')) / kl - 1) < 0.02);
});

check('on WebGPU it says the same, and which adapter computes', async () => {
  const caches = ['f32', 'e4m3fn, token-head'] as const;
  const expected = await compareInNode(caches, PROMPT, 6);
  await choose('backend', 'WebGPU');
  await run(caches, 6);
  match(await textOf('backend-used'), /^WebGPU: the GPU \(.+\) gives the known answers\./);
  equal([await textOf('text-a'), await textOf('text-b')], expected.texts.map((text) => PROMPT + text));
  const kl = expected.kl.reduce((sum, each) => sum + each) / expected.kl.length;
  ok(Math.abs((await numberOf('kl-mean')) / kl - 1) < 0.05);
  await choose('backend', 'the faster backend');
  await run(caches, 1);
  match(await textOf('backend-used'), /^Web(Assembly|GPU): the GPU /);
});

check('a folder that is no model is refused in words, and one that is can be dropped or chosen', async () => {
  const bad = join(folder, 'broken');
  mkdirSync(bad);
  writeFileSync(join(bad, 'notes.txt'), 'nothing');
  const refused = async (message: RegExp): Promise<void> => {
    await page.drop('#setup', bad, async () => is(await page.evaluate(`document.getElementById('drop').hidden`), false));
    await page.until(`${message}.test(document.getElementById('problem').textContent)`);
    equal(await page.evaluate(`['drop', 'problem'].map((id) => document.getElementById(id).hidden)`), [true, false]);
  };
  await refused(/^broken\/config\.json is missing: a model is a folder with/);
  cpSync(orator, bad, { recursive: true });
  writeFileSync(join(bad, 'model.safetensors'), readFileSync(`${orator}/model.safetensors`).subarray(0, 1000));
  await refused(/broken\/model\.safetensors/);
  writeFileSync(join(bad, 'tokenizer.json'), '{}');
  await refused(/^broken\/tokenizer\.json is neither/);
  // The model that was there still is.
  await run(['f32', 'f16'], 1);
  is(await page.evaluate(`document.getElementById('problem').hidden`), true);

  const good = join(folder, 'speaker');
  cpSync(orator, good, { recursive: true });
  await page.drop('#text-a', good);
  await page.until(`${loaded} && document.getElementById('model').textContent.startsWith('speaker')`);
  cpSync(orator, join(folder, 'chosen', 'below'), { recursive: true });
  cpSync(orator, join(folder, 'chosen'), { recursive: true });
  await page.choose('#folder', join(folder, 'chosen'));
  await page.until(`${loaded} && document.getElementById('model').textContent.startsWith('chosen')`);
  await write('prompt', 'A ship');
  await run(['int8, group 32', 'f32'], 2);
  const expected = await compareInNode(['int8, group 32', 'f32'], 'A ship', 2);
  equal([await textOf('text-a'), await textOf('text-b')], expected.texts.map((text) => `A ship${text}`));
});

check('a prompt that leaves no room is refused in words', async () => {
  await write('prompt', 'word '.repeat(400));
  await page.click('#run');
  await page.until(problem);
  match(await textOf('problem'), /^the prompt expected fewer than 256 tokens, the model's context, got \d+$/);
  await write('prompt', PROMPT);
});

check('the explorer rounds what is typed', async () => {
  await write('number', '0.3');
  is(await textOf('verdict'), 'Rounds up to 0.3125 (0x2A), 0.0125 away; 0.28125 (0x29) is 0.01875 away. The error is 4.2 % of the number.');
  is(await page.evaluate(`document.getElementById('bits').ariaLabel`), 'Code 0x2A, bits: sign 0, exponent 0101, mantissa 010');
  is(await textOf('formula'), '+ 2−2 × (1 + 2/8) = 0.3125');
  await write('number', '1e6');
  match(await textOf('verdict'), /^1e6 is beyond the last code: it becomes 448 \(0x7E\), which is saturation\. Without saturation it would be NaN \(0x7F\)\.$/);
  await write('number', 'nan');
  match(await textOf('verdict'), /^NaN stays NaN/);
  await write('number', 'a lot');
  is(await page.evaluate(`document.getElementById('number').ariaInvalid`), 'true');
  match(await textOf('number-problem'), /^This is not a number/);
  await write('number', '-2.5');
  is(await textOf('number-problem'), '');
  match(await textOf('verdict'), /^−2.5 is a code itself, 0xC2/);
  await page.click('[name=format][value=int8]');
  match(await textOf('verdict'), /^Exactly halfway between −3 and −2: a tie goes up to −2 \(0xFE\)/);
  is(await page.evaluate(`document.getElementById('bits').ariaLabel`), 'Code 0xFE, bits: sign 1, two’s complement 1111110');
});

check('the explorer goes along its line by keys and by dragging', async () => {
  await page.click('[name=format][value=e4m3fn]');
  await write('number', '1');
  await page.evaluate(`document.getElementById('line').focus()`);
  const now = (): Promise<[number, string]> => page.evaluate(`[Number(document.getElementById('line').ariaValueNow), document.getElementById('line').ariaValueText]`);
  await page.press('ArrowRight');
  equal(await now(), [1.03125, '1.03125, kept as 1']);
  await page.press('ArrowRight');
  match(await textOf('verdict'), /^Exactly halfway between 1 and 1.125: a tie goes down to 1 \(0x38\)/);
  await page.press('PageUp');
  await page.press('ArrowLeft');
  equal(await now(), [1.15625, '1.15625, kept as 1.125']);
  is(await page.evaluate(`document.getElementById('number').value`), '1.15625');
  await page.press('Home');
  equal(await now(), [-448, '−448, kept as −448']);
  await page.press('End');
  equal(await now(), [448, '448, kept as 448']);

  await page.click('[name=line][value=linear]');
  await page.drag('#line', [0.5, 0.5], [0.75, 0.5]);
  const [dragged] = await now();
  ok(dragged > 200 && dragged < 250, `${dragged}`);
  await page.click('[name=line][value=logarithmic]');
  await page.drag('#line', [0.75, 0.5], [0.5, 0.3]);
  equal((await now())[0], 0);
});

check('light and dark differ, both can be read, and nothing is wider than a telephone', async () => {
  await write('tokens', '96');
  await page.click('#load-orator');
  await page.until(loaded);
  await run(['f32', 'e4m3fn, token-head'], 96);
  await write('number', '0.3');
  const backgrounds = [];
  for (const width of [1200, 360]) {
    for (const scheme of ['light', 'dark'] as const) {
      await page.look({ width, scheme });
      // Two pictures, so that what is drawn is.
      await page.evaluate(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))`);
      const { texts, background, bad } = await contrast(page);
      ok(texts > 100, `${texts} texts`);
      equal(bad, []);
      backgrounds.push(background);
      is(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), true);
      await page.picture(join(pictures, `page-${width}-${scheme}.png`));
    }
  }
  not.equal(backgrounds[0], backgrounds[1]);
  await page.look({ width: 1200, scheme: 'light' });
});

check('all that can be used has a name, and is reached by the tab key', async () => {
  // The tab key goes on from where the focus was last.
  await page.evaluate(`document.querySelector('h1').tabIndex = -1; document.querySelector('h1').focus()`);
  const reached: string[] = [];
  for (let i = 0; i < 30; i++) {
    await page.press('Tab');
    const [id, outlined] = await page.evaluate<[string, boolean]>(`(() => {
      const at = document.activeElement;
      const shown = at.matches('.switch input') ? at.nextElementSibling : at;
      return [at.id || at.name || at.tagName, at === document.body || getComputedStyle(shown).outlineStyle !== 'none'];
    })()`);
    ok(outlined, id);
    if (reached.includes(id) || id === 'BODY') break;
    reached.push(id);
  }
  equal(reached.filter((id) => id !== 'map-scroll'), ['load-orator', 'folder', 'backend', 'cache-a', 'cache-b', 'prompt', 'tokens', 'run', 'map-side', 'map-part', 'map', 'number', 'format', 'line']);
  const nameless = await page.evaluate(`[...document.querySelectorAll('button, select, input, textarea, canvas, [role], progress')]
    .filter((element) => !(element.ariaHidden || element.labels?.length || element.ariaLabel || element.textContent.trim() || element.matches('[role=status], [role=alert]')))
    .map((element) => element.outerHTML)`);
  equal(nameless, []);
});

check('the server for its authors gives the same page', async () => {
  const server = await createServer({ configFile, server: { port: 0, host: '127.0.0.1' }, cacheDir: join(folder, 'vite'), logLevel: 'silent' });
  try {
    await server.listen();
    await page.open(server.resolvedUrls!.local[0]);
    await page.until(loaded);
    equal(await page.evaluate(`[...document.getElementById('cache-b').options].map((option) => option.text)`), variants.map(({ name }) => name));
    await run(['f32', 'e4m3fn, token-head'], 2);
    is(await textOf('text-a'), PROMPT + (await compareInNode(['f32', 'f16'], PROMPT, 2)).texts[0]);
    equal(await page.evaluate(`performance.getEntriesByType('resource').map(({ name }) => name).filter((name) => !name.startsWith(location.origin) && !name.startsWith('data:'))`), []);
  } finally {
    await server.close();
  }
});
