/** Whether the texts of a page can be read. */
import type { Page } from './devtools.js';

/** WCAG 2.2, level AA, for text of any size. */
const LEAST = 4.5;

export interface Contrast {
  /** Visible ones. */
  readonly texts: number;
  /** Of the page. */
  readonly background: string;
  /** Those with too little contrast: to the nearest background, or for the digits in a cell of a picture to its fill. */
  readonly bad: readonly (readonly [contrast: number, html: string])[];
}

const measured = `(() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    if (element.closest('.digits')) {
      const { left, top, width, height } = element.getBoundingClientRect();
      const under = [...element.closest('svg').querySelectorAll('.cells rect')].find((rect) => {
        const box = rect.getBoundingClientRect();
        return box.left <= left + width / 2 && left + width / 2 < box.right && box.top <= top + height / 2 && top + height / 2 < box.bottom;
      });
      return getComputedStyle(under).fill;
    }
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      if (!/, 0\\)$/.test(backgroundColor)) return backgroundColor;
    }
  };
  const texts = [...document.body.querySelectorAll('*')].filter((element) => element.checkVisibility() && !['title', 'SCRIPT'].includes(element.tagName) && (element.matches('input, select, textarea') || [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())));
  const contrasts = texts.map((element) => {
    const style = getComputedStyle(element);
    const [low, high] = [luminance(element instanceof SVGElement ? style.fill : style.color), luminance(behind(element))].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), element.outerHTML.slice(0, 100)];
  });
  return { texts: texts.length, background: behind(document.body), bad: contrasts.filter(([contrast]) => !(contrast >= ${LEAST})) };
})()`;

export const contrast = (page: Page): Promise<Contrast> => page.evaluate(measured);
