/** Words and numbers as the report writes them. */

const entities: { readonly [character: string]: string } = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Text that stands for itself in HTML, between tags and in quoted attributes. */
export const escape = (text: string): string => String(text).replaceAll(/[&<>"']/g, (character) => entities[character]);

/** What is no finite number, or undefined. What was NaN may be null: JSON has no NaN. */
function notFinite(value: number): string | undefined {
  if (Number.isFinite(value)) return undefined;
  return value === Infinity ? '∞' : value === -Infinity ? '−∞' : 'NaN';
}

/** With a minus sign, where there is a hyphen. */
const signed = (text: string): string => text.replace(/^-/, '−');

/** 41370 → 41,370. Written out here: what a locale says may change from one Node to the next. */
export function count(value: number): string {
  const [whole, part] = String(Math.round(value * 10) / 10).split('.');
  return notFinite(value) ?? signed(whole.replaceAll(/\B(?=(\d{3})+$)/g, ',') + (part ? `.${part}` : ''));
}

/** A size over another: 0.27 ×. */
export const times = (value: number): string => notFinite(value) ?? `${value < 0.1 ? value.toPrecision(1) : value.toFixed(2)} ×`;

/** A divergence in nats: two digits, 3.3e-4. */
export function divergence(value: number): string {
  if (!Number.isFinite(value) || value === 0) return notFinite(value) ?? '0';
  return signed(Math.abs(value) < 0.0995 || Math.abs(value) >= 1e4 ? value.toExponential(1).replace('e+', 'e') : value.toPrecision(Math.abs(value) < 99.5 ? 2 : 4));
}

export const perplexity = (value: number): string => notFinite(value) ?? signed(value >= 1e5 ? value.toExponential(2).replace('e+', 'e') : value.toFixed(3));

/** By how much a number is more than another, in percent: +0.012 %. */
export function change(value: number, reference: number): string {
  const percent = 100 * (value / reference - 1);
  const size = Math.abs(percent);
  const digits = size >= 1e5 || size < 5e-4 ? percent.toExponential(size < 1 ? 0 : 1).replace('e+', 'e') : percent.toFixed(size < 10 ? 3 : 1);
  return notFinite(percent) ?? (percent === 0 ? '0 %' : `${percent > 0 ? '+' : ''}${signed(digits)} %`);
}

/** A share of tokens. Only all of them are 100 %. */
export function share(value: number): string {
  const percent = (100 * value).toFixed(2);
  return notFinite(value) ?? (percent === '100.00' ? (value < 1 ? '> 99.99 %' : '100 %') : `${percent} %`);
}

/** A relative error in percent, without the sign: three digits. */
export function errorDigits(value: number): string {
  const percent = 100 * value;
  if (!Number.isFinite(value) || value === 0) return notFinite(value) ?? '0';
  return percent >= 999.5 || percent < 1e-3 ? percent.toExponential(1).replace('e+', 'e') : percent.toPrecision(3);
}

export const error = (value: number): string => (Number.isFinite(value) ? `${errorDigits(value)} %` : errorDigits(value));

/** a, b and c. */
export const list = (words: readonly string[]): string => (words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`);

/** Attribute values that are coordinates: a tenth of a pixel is enough. */
export const at = (value: number): string => String(Math.round(value * 10) / 10);
