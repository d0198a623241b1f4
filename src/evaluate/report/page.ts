/** An evaluation as one HTML page, which needs nothing else: no net, no script to be readable, no date. */
import type { Evaluation } from '../evaluation.js';
import { answer, html } from './answer.js';
import { pictures } from './picture.js';
import { plot } from './plot.js';
import { script } from './script.js';
import { style } from './style.js';
import { table } from './table.js';
import { count, escape } from './text.js';

const policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

export interface ReportOptions {
  /** Of the package, to be named at the end. */
  readonly version?: string;
}

function howMade({ model, backend, text, calibration, variants }: Evaluation, version: string | undefined): string {
  const rows: readonly (readonly [string, string])[] = [
    ['Model', `${escape(model.name)}: ${count(model.layers)} layers, ${count(model.queryHeads)} query heads, ${count(model.kvHeads)} KV heads of ${count(model.headDim)}, context ${count(model.context)}`],
    ['Backend', escape(backend)],
    ['Text', `${escape(text.name)}, ${count(text.tokens)} tokens, ${count(text.window)} at a time, each from an empty cache`],
    ['Calibration', calibration ? `${escape(calibration.name)}, ${count(calibration.tokens)} tokens` : 'none'],
    ['Reference', escape(variants[0].name)],
    ...(version === undefined ? [] : [['Made by', `fp8-kv ${escape(version)}`] as const]),
  ];
  return `<section aria-labelledby="made">
<h2 id="made">How this was made</h2>
<dl class="made">${rows.map(([term, text]) => `<dt>${term}</dt><dd>${text}</dd>`).join('')}</dl>
<p class="note">What the lead says, and by which rules: closest is the smallest mean KL; of equals the one of fewer bytes, then the earlier. Variants within a tenth of the smallest are named beside it. Variants of 8 bits are compared with each other, those that are not quantized are named apart.</p>
</section>`;
}

/**
 * The report of an evaluation: a self-contained HTML page. Equal evaluations give equal pages.
 * @param evaluation the first variant is the reference
 */
export function renderReport(evaluation: Evaluation, { version }: ReportOptions = {}): string {
  const { headline, remarks } = answer(evaluation, html);
  const title = `KV cache of ${escape(evaluation.model.name)}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${title}: which dtype?</title>
<style>${style}</style>
</head>
<body>
<main>
<header>
<h1>${title}: which dtype?</h1>
<p class="answer">${headline}</p>
<ul class="remarks">${remarks.map((remark) => `<li>${remark}</li>`).join('')}</ul>
</header>
${table(evaluation)}
${plot(evaluation)}
${pictures(evaluation)}
${howMade(evaluation, version)}
</main>
<script>${script}</script>
</body>
</html>
`;
}
