import { equal, is, match, not, ok } from 'uvu/assert';
import { answer, plain } from '../../src/evaluate/report/answer.js';
import { renderReport } from '../../src/evaluate/report/page.js';
import type { Evaluation, VariantResult } from '../../src/evaluate/evaluation.js';
import { suite } from '../suite.js';
import { evaluation } from './fixture.js';

const test = suite('report of an evaluation');

/** The text between tags, entities left as they are. */
const words = (html: string): string => html.replaceAll(/<(style|script)>.*?<\/\1>|<\/?(b|span)\b[^>]*>/gs, '').replaceAll(/<[^>]*>/g, ' ').replaceAll(/\s+/g, ' ');

/** What the report leads with. */
const lead = (given: Evaluation): string => words(/<header>.*?<\/header>/s.exec(renderReport(given))![0]);

function withVariant(index: number, changes: Partial<VariantResult>, given = evaluation()): Evaluation {
  return { ...given, variants: given.variants.map((variant, i) => (i === index ? { ...variant, ...changes } : variant)) };
}

test('names every variant in the table, the plot and the select', () => {
  const html = renderReport(evaluation());
  for (const { name } of evaluation().variants) {
    ok(html.split(name).length > 3, name);
    match(html, new RegExp(`<th scope="row">.*?> ${name}(<| )`));
    if (name !== 'f32') match(html, new RegExp(`<option [^>]*>${name}<`));
  }
});

test('asks nothing of the net, and says nothing that changes from run to run', () => {
  const html = renderReport(evaluation());
  is(html, renderReport(structuredClone(evaluation())));
  not.match(html, /https?:|url\(|@import|\b(src|href)="(?!data:)/);
  match(html, /content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"/);
  not.match(html, /fp8-kv \d/);
  match(renderReport(evaluation(), { version: '1.2.3' }), /fp8-kv 1\.2\.3/);
});

test('leads with the closest of 8 bits, the closest of FP8, and those too near to tell apart', () => {
  const text = lead(evaluation());
  match(text, 'int8, token-head keeps this model closest to f32: mean KL 2.0e-5 at 0.27 × the bytes.');
  match(text, 'perplexity goes from 19.838 to 19.839 (+0.005 %)');
  match(text, 'too near for one text to tell apart: int8, channel, mse (mean KL 2.1e-5 at 0.25 × the bytes)');
  match(text, 'Of the FP8 ways, e4m3fn, token-head is closest: mean KL 3.3e-4');
  match(text, 'Of those that are not quantized, f16 is closest');
  match(text, '41,370 tokens of held-out.txt');
  not.match(text, 'noise');
});

test('says that few tokens make perplexity noise', () => {
  match(lead(evaluation({}, 1999)), 'Under 2,000 tokens, differences in perplexity are noise');
  not.match(lead(evaluation({}, 2000)), 'noise');
});

test('a single token is one', () => match(lead(evaluation({}, 1)), '1 token of held-out.txt was evaluated. Under 2,000 tokens,'));

test('says so where the model itself only guesses, before anything else that it says', () => {
  const guess = /at 0.27 × the bytes. The model itself can do no better than guess here, with a perplexity of 19.838 among 19 tokens: is this a text for it/;
  match(lead(evaluation({ vocab: 19 })), guess);
  not.match(lead(evaluation({ vocab: 20 })), 'guess');
});

test('a terminal gets the same words, as they are', () => {
  const given = evaluation({ name: 'a & b' });
  const { headline, remarks } = answer({ ...given, text: { ...given.text, name: '<b>&amp;' } }, plain);
  is(headline, 'int8, token-head keeps this model closest to f32: mean KL 2.0e-5 at 0.27 × the bytes.');
  match(remarks.at(-1)!, '41,370 tokens of <b>&amp; were evaluated.');
});

test('of equal mean KL, the one of fewer bytes is closest', () => {
  match(lead(withVariant(2, { kl: { mean: 2e-5, p99: 1, max: 1 } })), /^ KV cache of orator: which dtype\? e4m3fn, tensor, scale 1 keeps/);
});

test('text from outside stays text', () => {
  const evil = `<script>alert("1")</script><img src=x onerror='alert(1)'>&amp;`;
  const given = evaluation({ name: evil });
  const html = renderReport({ ...withVariant(3, { name: evil }, given), backend: evil, text: { ...given.text, name: evil }, calibration: { name: evil, tokens: 1 } }, { version: evil });
  is(html.split('<script').length, 2);
  not.match(html, /<img|alert\("/);
  ok(html.split('&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;amp;').length > 8);
});

test('the reference alone, one variant, and no errors of heads', () => {
  const given = evaluation();
  match(lead({ ...given, variants: given.variants.slice(0, 1) }), 'Nothing to compare');
  match(lead({ ...given, variants: given.variants.slice(0, 2) }), 'f16 differs from f32: mean KL 1.2e-8 at 0.50 × the bytes.');
  const { calibration: _, ...uncalibrated } = given;
  const html = renderReport({ ...uncalibrated, variants: given.variants.map((variant) => ({ ...variant, headErrors: undefined })) });
  match(html, 'This evaluation has no errors per head.');
  match(html, '<dt>Calibration</dt><dd>none</dd>');
  not.match(html, '<select');
});

test('what is no finite number is shown, and compared with nothing', () => {
  const bad = { perplexity: NaN, kl: { mean: NaN, p99: Infinity, max: Infinity }, agreement: 0, headErrors: { k: [[NaN, 0]], v: [[Infinity, 1e-9]] } };
  const given = withVariant(16, bad);
  match(lead(given), 'int8, channel, mse keeps this model closest');
  match(lead(given), 'No finite mean KL, and so left out of what is said here: int8, token-head.');
  const html = renderReport(given);
  match(html, '<td data-value="NaN">NaN</td><td data-value="NaN">NaN</td><td data-value="NaN">NaN</td><td data-value="Infinity">∞</td>');
  match(html, 'not finite</text>');
  match(html, 'class="hx"><title>layer 0, head 0: NaN</title>');
  match(html, 'no finite number');
  not.match(html.replaceAll(/<title>.*?<\/title>|aria-label=".*?"/g, ''), /(d|x|y|width|height|transform)="[^"]*(NaN|Infinity)/);
  // From JSON, which has no NaN.
  is(lead(JSON.parse(JSON.stringify(given))), lead(given));
  match(lead({ ...given, variants: given.variants.map((variant, i) => (i === 0 ? variant : { ...variant, ...bad })) }), 'None of the ways');
});

test('zeros have a place of their own', () => {
  const none = { mean: 0, p99: 0, max: 0 };
  const given = evaluation();
  const zeros = { ...given, variants: given.variants.map((variant) => ({ ...variant, kl: none, headErrors: { k: [[0]], v: [[0]] } })) };
  match(lead(zeros), 'mean KL 0 at 0.25 × the bytes');
  const html = renderReport(zeros);
  not.match(html, /="[^"]*(NaN|Infinity)/);
  match(html, 'largest 0 % in layer 0, head 0');
});

/** Which columns of the table have their best marked, row by row. */
function marked(html: string): number[][] {
  return [...html.matchAll(/<tr><th scope="row">.*?<\/tr>/g)].map(([row]) => row.split('<td').slice(1).flatMap((cell, column) => (cell.includes('(best)') ? [column] : [])));
}

test('marks the best of each column among those of 8 bits', () => {
  const rows = marked(renderReport(evaluation()));
  equal([rows[0], rows[1]], [[], []]);
  equal(rows[16], [2, 3, 4, 6, 7]);
  equal(rows[15], [0, 1, 5]);
  for (const column of [2, 4, 5, 6, 7]) is(rows.flat().filter((each) => each === column).length, 1);
});

test('80 layers, 8 heads and 16 variants stay below 2 MB', () => {
  const html = renderReport(evaluation({ layers: 80, queryHeads: 64, kvHeads: 8, headDim: 128 }));
  is(html.match(/<rect x="\d+" y="\d+" class="h\d+"><title>/g)!.length, 80 * 8 * 2 * 16);
  ok(html.length < 2e6, `${html.length}`);
});
