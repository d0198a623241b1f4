/** The errors of each layer and KV head, as cells of a colour: layers from left to right, heads from top to bottom. */
import type { Evaluation, VariantResult } from '../evaluation.js';
import { candidates, closest } from './answer.js';
import { LEVELS, scaleOf, type Scale } from './ramp.js';
import { at, error, errorDigits, escape } from './text.js';

type Errors = readonly (readonly number[])[];

/** Left of the cells, and above and below them. */
const LEFT = 56;
const TOP = 6;
const BOTTOM = 36;
/** Cells up to which each has its number written in it. */
const NUMBERED = 64;

/** Every so many indices one is written: the largest that leaves room. */
function everyOf(length: number, size: number, room: number): number {
  return [1, 2, 4, 5, 8, 10, 20, 40].find((every) => every * size >= room || every >= length) ?? 50;
}

const indices = (length: number, every: number): number[] => Array.from({ length: Math.ceil(length / every) }, (_, i) => i * every);

const levelOf = (scale: Scale | undefined, value: number): string => (Number.isFinite(value) ? String(scale?.level(value) ?? 0) : 'x');

/** The largest error, and where it is. */
function worst(errors: Errors): string {
  let [most, place] = [-Infinity, ''];
  for (const [layer, heads] of errors.entries()) {
    for (const [head, value] of heads.entries()) {
      const weight = Number.isFinite(value) ? value : Infinity;
      if (weight > most) [most, place] = [weight, `${error(value)} in layer ${layer}, head ${head}`];
    }
  }
  return place;
}

function grid(side: 'K' | 'V', errors: Errors, scale: Scale | undefined): string {
  const layers = errors.length;
  const heads = Math.max(...errors.map((row) => row.length));
  if (layers === 0 || heads <= 0) return '';
  const width = Math.max(9, Math.min(64, Math.floor(760 / layers)));
  const height = Math.max(9, Math.min(28, width, Math.floor(360 / heads)));
  const [right, bottom] = [LEFT + layers * width, TOP + heads * height];
  const cells = errors.map((row, layer) => row.map((value, head) => `<rect x="${layer}" y="${head}" class="h${levelOf(scale, value)}"><title>layer ${layer}, head ${head}: ${error(value)}</title></rect>`).join('')).join('');
  const middle = (index: number, size: number): number => index * size + size / 2;
  const numbers = layers * heads <= NUMBERED && width >= 44
    ? errors.map((row, layer) => row.map((value, head) => `<text class="n${levelOf(scale, value)}" x="${at(LEFT + middle(layer, width))}" y="${at(TOP + middle(head, height) + 4)}">${errorDigits(value)}</text>`).join('')).join('')
    : '';
  const layerNames = indices(layers, everyOf(layers, width, 26)).map((layer) => `<text x="${at(LEFT + middle(layer, width))}" y="${bottom + 15}">${layer}</text>`).join('');
  const headNames = indices(heads, everyOf(heads, height, 13)).map((head) => `<text class="end" x="${LEFT - 6}" y="${at(TOP + middle(head, height) + 4)}">${head}</text>`).join('');
  // A little wider than its cells: a number below the last may be.
  return `<div class="scroll"><svg class="grid" data-side="${side}" role="img" aria-label="${side}, error of each layer and head: at most ${worst(errors)}" width="${right + 8}" height="${bottom + BOTTOM}" viewBox="0 0 ${right + 8} ${bottom + BOTTOM}">
<g class="cells" transform="translate(${LEFT} ${TOP}) scale(${width} ${height})">${cells}</g>
<g class="digits" aria-hidden="true">${numbers}</g><g class="axis" aria-hidden="true">${layerNames}${headNames}<text x="${at((LEFT + right) / 2)}" y="${bottom + 31}">layer</text><text transform="translate(14 ${at((TOP + bottom) / 2)}) rotate(-90)">${heads > 1 && heads * height >= 40 ? 'KV head' : 'head'}</text></g>
</svg></div>`;
}

function picture({ name, headErrors }: VariantResult, index: number, scale: Scale | undefined): string {
  const { k, v } = headErrors!;
  const side = (letter: 'K' | 'V', errors: Errors): string => `<div class="side"><p><b>${letter === 'K' ? 'Keys' : 'Values'}</b>, largest ${worst(errors)}</p>${grid(letter, errors, scale)}</div>`;
  return `<figure class="picture" id="errors-${index}"><figcaption><h3>${escape(name)}</h3></figcaption><div class="sides">${side('K', k)}${side('V', v)}</div></figure>`;
}

/** Round numbers on a logarithmic scale, no two nearer to each other than there is room for. */
function ticks({ from, to }: Scale, place: (value: number) => number, room: number): number[] {
  const kept = [from];
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++) {
    for (const digit of [1, 2, 5]) {
      const value = Number(`${digit}e${power}`);
      if (place(value) - place(kept.at(-1)!) >= room && place(to) - place(value) >= room) kept.push(value);
    }
  }
  return [...kept, to];
}

function legend(scale: Scale, anyBroken: boolean): string {
  const step = 10;
  const place = (value: number): number => 24 + (Math.log(value / scale.from) / Math.log(scale.to / scale.from)) * LEVELS * step;
  const boxes = Array.from({ length: LEVELS }, (_, level) => `<rect x="${24 + level * step}" y="2" width="${step}" height="14" class="h${level}"/>`).join('');
  const labels = ticks(scale, place, 48).map((value) => `<path d="M${at(place(value))} 16v4"/><text x="${at(place(value))}" y="32">${Number((100 * value).toPrecision(3))} %</text>`).join('');
  const broken = anyBroken ? `<p class="note"><svg class="key" width="14" height="14" aria-hidden="true"><rect width="14" height="14" class="hx"/></svg> no finite number</p>` : '';
  const width = 48 + LEVELS * step;
  return `<svg class="axis" role="img" aria-label="Colours from ${error(scale.from)} to ${error(scale.to)}" width="${width}" height="38" viewBox="0 0 ${width} 38">${boxes}${labels}</svg>${broken}`;
}

/** The section with a picture for each variant that has errors; `show` comes first. */
export function pictures(evaluation: Evaluation): string {
  const withErrors = evaluation.variants.filter(({ headErrors }) => headErrors !== undefined);
  const head = '<section aria-labelledby="heads">\n<h2 id="heads">The error of each layer and head</h2>';
  if (withErrors.length === 0) return `${head}\n<p>This evaluation has no errors per head.</p>\n</section>`;
  const errorsOf = (variants: readonly VariantResult[]): number[] => variants.flatMap(({ headErrors }) => (headErrors ? [...headErrors.k.flat(), ...headErrors.v.flat()] : []));
  const all = errorsOf(withErrors);
  // Errors of f16 are far below: colours are for those that are compared.
  const scale = scaleOf(errorsOf(candidates(evaluation))) ?? scaleOf(all);
  const first = closest(candidates(evaluation).filter(({ headErrors }) => headErrors !== undefined)) ?? withErrors[0];
  const options = withErrors.map((variant, i) => `<option value="errors-${i}"${variant === first ? ' selected' : ''}>${escape(variant.name)}</option>`).join('');
  return `${head}
<p class="note">What storing does to keys and values themselves: root mean square of the error over that of the values, in percent, on one logarithmic scale for all variants.${scale && all.some((value) => value < scale.from) ? ' What is below the scale has its first colour.' : ''}</p>
${scale ? legend(scale, !all.every(Number.isFinite)) : ''}
<p class="choose" hidden><label for="variant">Variant</label> <select id="variant">${options}</select></p>
<p id="readout" class="readout" aria-live="polite" hidden>Point at a cell, or focus a grid and use the arrow keys.</p>
${withErrors.map((variant, i) => picture(variant, i, scale)).join('\n')}
</section>`;
}
