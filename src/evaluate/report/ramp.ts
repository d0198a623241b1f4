/** Colours for errors: lightness goes one way, so that they order themselves for every eye, and in print without colour. */

/** Steps of the ramp. */
export const LEVELS = 24;

type Rgb = readonly [number, number, number];

/** From the page's own lightness to the far end of it. */
const light: readonly Rgb[] = [[250, 243, 225], [248, 208, 130], [232, 142, 62], [188, 74, 50], [112, 30, 58], [58, 12, 52]];
const dark: readonly Rgb[] = [[48, 32, 52], [112, 30, 64], [188, 74, 50], [232, 142, 62], [248, 208, 130], [255, 247, 226]];

function blend(stops: readonly Rgb[], level: number): Rgb {
  const place = (level / (LEVELS - 1)) * (stops.length - 1);
  const stop = Math.min(Math.floor(place), stops.length - 2);
  const mix = (channel: 0 | 1 | 2): number => Math.round(stops[stop][channel] + (place - stop) * (stops[stop + 1][channel] - stops[stop][channel]));
  return [mix(0), mix(1), mix(2)];
}

/** Relative luminance (WCAG 2.2). */
function luminance(rgb: Rgb): number {
  const [red, green, blue] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

const hex = (rgb: Rgb): string => `#${rgb.map((value) => value.toString(16).padStart(2, '0')).join('')}`;

const levelsOf = (stops: readonly Rgb[]): string[] => Array.from({ length: LEVELS }, (_, level) => hex(blend(stops, level)));

/** The colour of each level, by daylight and at night. */
export const ramps = { light: levelsOf(light), dark: levelsOf(dark) };

/** Fill of each level, and black or white for the digits on it, whichever has more contrast. */
function rules(stops: readonly Rgb[]): string {
  return Array.from({ length: LEVELS }, (_, level) => {
    const rgb = blend(stops, level);
    // Where both have the same contrast: (1.05) / (L + 0.05) = (L + 0.05) / 0.05.
    const ink = luminance(rgb) > Math.sqrt(1.05 * 0.05) - 0.05 ? '#000' : '#fff';
    return `.h${level}{fill:${hex(rgb)}}.n${level}{fill:${ink}}`;
  }).join('');
}

export const rampStyle = `${rules(light)}@media (prefers-color-scheme:dark){${rules(dark)}}`;

/** From a relative error to a level, on a logarithmic scale. */
export interface Scale {
  readonly from: number;
  readonly to: number;
  level(error: number): number;
}

const NICE = [1, 1.5, 2, 3, 5, 7, 10];

/** The next round number below, or above. */
function round(value: number, up: boolean): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const digits = value / power;
  // A millionth of slack: 0.03 / 0.01 is a little less than 3.
  const nice = up ? NICE.find((each) => each >= digits * (1 - 1e-6)) : NICE.filter((each) => each <= digits * (1 + 1e-6)).at(-1);
  return Number(((nice ?? 1) * power).toPrecision(3));
}

/** Covers all errors that are positive and finite, three decades at most: what is below has the lowest level. */
export function scaleOf(errors: readonly number[]): Scale | undefined {
  const shown = errors.filter((error) => error > 0 && Number.isFinite(error));
  if (shown.length === 0) return undefined;
  let [least, most] = [Infinity, 0];
  for (const error of shown) [least, most] = [Math.min(least, error), Math.max(most, error)];
  const to = round(most, true);
  const below = round(Math.max(least, most / 1000), false);
  const from = below < to ? below : to / 2;
  const steps = LEVELS / Math.log(to / from);
  return { from, to, level: (error) => (error > from ? Math.min(LEVELS - 1, Math.floor(Math.log(error / from) * steps)) : 0) };
}
