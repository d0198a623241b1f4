/**
 * Bytes against mean KL. Variants of equal bytes share a band, bands go from few bytes to many: on a true scale nearly all
 * would stand on one another, since the sizes are few (a byte per element, with or without scales of its own).
 */
import type { Evaluation, VariantResult } from '../evaluation.js';
import { inlineMark, mark } from './marks.js';
import { at, count, divergence, escape, times } from './text.js';

const COLUMN = 46;
const LEFT = 128;
const TOP = 54;
/** Of the logarithmic part, and of the rows for what it has no place for. */
const HEIGHT = 300;
const ROW = 44;
/** Room for names, which go down to the left. */
const NAMES = 132;
const LONGEST = 26;
/** Decades that are shown: what is smaller stands at the lowest. */
const DECADES = 12;

interface Band {
  readonly bytes: number;
  readonly variants: readonly VariantResult[];
  readonly x: number;
  readonly width: number;
}

/** What is no finite number stands first, as if it were larger than all. */
const rank = ({ kl }: VariantResult): number => (Number.isFinite(kl.mean) ? kl.mean : Number.MAX_VALUE);

/** Wide enough for their variants and for what is written above. */
function bandsOf(variants: readonly VariantResult[]): Band[] {
  const sizes = [...new Set(variants.map(({ bytesPerToken }) => bytesPerToken))].sort((a, b) => a - b);
  let x = LEFT;
  return sizes.map((bytes) => {
    const here = variants.filter(({ bytesPerToken }) => bytesPerToken === bytes).sort((a, b) => rank(b) - rank(a));
    const width = Math.max(COLUMN * here.length, 26 + 7 * count(bytes).length);
    x += width;
    return { bytes, variants: here, x: x - width, width };
  });
}

/** Decades from … to, as powers of ten. */
function decadesOf(variants: readonly VariantResult[]): readonly [number, number] {
  const values = variants.flatMap(({ kl }) => [kl.mean, kl.p99]).filter((value) => value > 0 && Number.isFinite(value));
  if (values.length === 0) return [-6, 0];
  const to = Math.ceil(Math.log10(Math.max(...values)) - 1e-9);
  return [Math.max(Math.min(Math.floor(Math.log10(Math.min(...values))), to - 1), to - DECADES), to];
}

const shortened = (name: string): string => (name.length > LONGEST ? `${name.slice(0, LONGEST - 1)}…` : name);

/** Where a divergence stands, and the axis that says so. */
function verticalAxis(variants: readonly VariantResult[], right: number): { place(value: number): number; bottom: number; svg: string } {
  const [from, to] = decadesOf(variants);
  const broken = variants.some(({ kl }) => !Number.isFinite(kl.mean) || !Number.isFinite(kl.p99));
  const top = TOP + (broken ? ROW : 0);
  const logBottom = top + HEIGHT;
  const bottom = logBottom + ROW;
  const place = (value: number): number => {
    if (!Number.isFinite(value)) return TOP + ROW / 2;
    if (value <= 0) return logBottom + ROW / 2;
    return top + HEIGHT * Math.min(1, (to - Math.log10(value)) / (to - from));
  };
  const line = (y: number, kind: string): string => `<path class="${kind}" d="M${LEFT} ${at(y)}H${right}"/>`;
  const label = (y: number, text: string): string => `<text class="end" x="${LEFT - 8}" y="${at(y + 4)}">${text}</text>`;
  const decades = Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const between = to - from > 6 ? [] : decades.slice(0, -1).flatMap((power) => [2, 5].map((digit) => line(place(digit * 10 ** power), 'faint')));
  const svg = [
    ...between,
    ...decades.map((power) => line(place(10 ** power), 'rule') + label(place(10 ** power), power === 0 || power === 1 ? String(10 ** power) : `1e${power}`)),
    line(bottom, 'rule'),
    label(place(0), '0'),
    broken ? line(TOP, 'rule') + label(place(NaN), 'not finite') : '',
    `<text transform="translate(${LEFT - 62} ${(top + logBottom) / 2}) rotate(-90)">mean KL to the reference, nats per token (log)</text>`,
  ];
  return { place, bottom, svg: svg.join('') };
}

/** One variant: its mark at the mean, a line from there to p99, and its name below. */
function column(variant: VariantResult, x: number, place: (value: number) => number, bottom: number): string {
  const { name, dtype, kl, bytesPerToken } = variant;
  const [mean, p99] = [place(kl.mean), place(kl.p99)];
  const whisker = kl.mean === kl.p99 ? '' : `<path class="whisker ${dtype}" d="M${at(x)} ${at(mean)}V${at(p99)}M${at(x - 4)} ${at(p99)}h8"/>`;
  return `<g><title>${escape(name)}: ${count(bytesPerToken)} bytes per token, KL mean ${divergence(kl.mean)}, p99 ${divergence(kl.p99)}</title>${whisker}${mark(dtype, x, mean)}<text class="end" transform="translate(${at(x + 4)} ${bottom + 14}) rotate(-42)">${escape(shortened(name))}</text></g>`;
}

function bandHead({ bytes, x, width }: Band, reference: number): string {
  const middle = x + width / 2;
  const length = Math.min(width - 10, COLUMN - 10);
  const part = Math.max(0, Math.min(1, bytes / reference || 0));
  const start = at(middle - length / 2);
  return `<text x="${at(middle)}" y="16">${count(bytes)} B</text><text class="quiet" x="${at(middle)}" y="31">${times(bytes / reference)}</text><path class="whole" d="M${start} 42h${length}"/><path class="part" d="M${start} 42h${at(length * part)}"/>`;
}

export function plot({ variants }: Evaluation): string {
  const bands = bandsOf(variants);
  const right = Math.max(...bands.map(({ x, width }) => x + width));
  const { place, bottom, svg } = verticalAxis(variants, right);
  const columns = bands.flatMap(({ variants: here, x, width }) => here.map((variant, i) => column(variant, x + (width * (i + 0.5)) / here.length, place, bottom)));
  const borders = bands.map(({ x }) => `<path class="rule" d="M${x} ${TOP - 48}V${bottom}"/>`).join('') + `<path class="rule" d="M${right} ${TOP - 48}V${bottom}"/>`;
  const formatsHere = [...new Set(variants.map(({ dtype }) => dtype))];
  const [width, height] = [right + 8, bottom + NAMES];
  return `<section aria-labelledby="plot">
<h2 id="plot">Bytes against divergence</h2>
<figure>
<p class="keys">${formatsHere.map((format) => `<span>${inlineMark(format)} ${format}</span>`).join(' ')} <span><svg class="sign" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true"><path class="whisker" d="M0 6V-5M-4-5h8"/></svg> up to p99</span></p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="plot"><svg class="axis plot" role="img" aria-label="Mean KL of each variant over its bytes per token; the table has the numbers" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">
<text class="end" x="${LEFT - 8}" y="16">bytes per token</text><text class="end quiet" x="${LEFT - 8}" y="31">of the reference</text>
${bands.map((band) => bandHead(band, variants[0].bytesPerToken)).join('')}${svg}${borders}
${columns.join('\n')}
</svg></div>
<figcaption class="note">Lower is closer to the reference, left is smaller. Variants of equal bytes stand side by side, the farthest first; sizes are in order, and the bars above are to scale.</figcaption>
</figure>
</section>`;
}
