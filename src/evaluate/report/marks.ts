/** One shape for each format: told apart without colour. */
import type { Format } from '../../formats.js';
import { at } from './text.js';

/** Paths around (0, 0), about 10 wide. */
const paths: { readonly [F in Format]: string } = {
  e4m3fn: 'M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z',
  e5m2: 'M-4.5-4.5h9v9h-9z',
  int8: 'M0-5.5L5.5 4.5h-11z',
  f16: 'M0-6L6 0L0 6L-6 0z',
  f32: 'M-5-2h3v-3h4v3h3v4h-3v3h-4v-3h-3z',
};

export const mark = (format: Format, x = 0, y = 0): string => `<path class="mark ${format}" d="${paths[format]}" transform="translate(${at(x)} ${at(y)})"/>`;

/** A mark beside words. */
export const inlineMark = (format: Format): string => `<svg class="sign" viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true">${mark(format)}</svg>`;
