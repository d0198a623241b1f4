/** One number, and what becomes of it in 8 bits. */
import { formats, type QuantizedFormat } from '../../src/formats.js';
import { bitsOf, codesOf, formulaOf, roundTo, stepFrom, type Code } from './codes.js';
import { byId, element, oncePerFrame, shape } from './dom.js';
import { hex, parseNumber, show, verdictOf } from './words.js';

const HEIGHT = 78;
/** Where the line's ticks stand on. */
const FLOOR = 52;
const NEAR_HEIGHT = 104;
/** So that the outermost labels have room. */
const MARGIN = 30;

const all: { readonly [F in QuantizedFormat]: readonly Code[] } = { e4m3fn: codesOf('e4m3fn'), e5m2: codesOf('e5m2'), int8: codesOf('int8') };

/** Numbers as places on a line, −1 to 1. */
interface Line {
  place(value: number): number;
  value(place: number): number;
}

function lineOf(kind: string, codes: readonly Code[]): Line {
  const most = codes.at(-1)!.value;
  if (kind === 'linear') return { place: (value) => value / most, value: (place) => place * most };
  // Logarithmic away from zero, linear around it: the smallest code is where one becomes the other.
  const least = codes.find(({ value }) => value > 0)!.value;
  const end = Math.asinh(most / least);
  return { place: (value) => Math.asinh(value / least) / end, value: (place) => Math.sinh(place * end) * least };
}

class Explorer {
  readonly #number = byId<HTMLInputElement>('number');
  readonly #problem = byId('number-problem');
  readonly #line = byId('line');
  readonly #near = byId('near');
  readonly #draw = oncePerFrame(() => this.#paint());
  #x = 0.3;

  constructor() {
    this.#number.addEventListener('input', () => this.#type());
    for (const input of document.querySelectorAll('[name=format], [name=line]')) input.addEventListener('change', () => this.#say());
    this.#line.addEventListener('keydown', (event) => this.#press(event));
    this.#line.addEventListener('pointerdown', (event) => {
      this.#line.setPointerCapture(event.pointerId);
      this.#drag(event);
    });
    this.#line.addEventListener('pointermove', (event) => {
      if (this.#line.hasPointerCapture(event.pointerId)) this.#drag(event);
    });
    new ResizeObserver(this.#draw).observe(this.#line);
    this.#say();
  }

  get #format(): QuantizedFormat {
    return document.querySelector<HTMLInputElement>('[name=format]:checked')!.value as QuantizedFormat;
  }

  get #codes(): readonly Code[] {
    return all[this.#format];
  }

  get #scale(): Line {
    return lineOf(document.querySelector<HTMLInputElement>('[name=line]:checked')!.value, this.#codes);
  }

  #type(): void {
    const typed = parseNumber(this.#number.value);
    this.#number.ariaInvalid = String(typed === undefined);
    this.#problem.textContent = typed === undefined ? 'This is not a number. Numbers are written like 0.3, −2, 1e-3, inf or nan.' : '';
    if (typed === undefined) return;
    this.#x = typed;
    this.#say();
  }

  /** Takes a number from the line. */
  #set(x: number): void {
    this.#x = x;
    this.#number.value = show(x);
    this.#number.ariaInvalid = 'false';
    this.#problem.textContent = '';
    this.#say();
  }

  #press(event: KeyboardEvent): void {
    const codes = this.#codes;
    const quarters: { readonly [key: string]: number } = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 4, PageDown: -4 };
    const ends: { readonly [key: string]: number } = { Home: codes[0].value, End: codes.at(-1)!.value };
    if (!(event.key in quarters) && !(event.key in ends)) return;
    event.preventDefault();
    this.#set(event.key in ends ? ends[event.key] : stepFrom(Number.isNaN(this.#x) ? 0 : this.#x, quarters[event.key], codes));
  }

  #drag(event: PointerEvent): void {
    const { left, width } = this.#line.getBoundingClientRect();
    const place = Math.min(1, Math.max(-1, (2 * (event.clientX - left - MARGIN)) / (width - 2 * MARGIN) - 1));
    const value = this.#scale.value(place);
    // As many digits as a hand can aim at.
    this.#set(Number(value.toPrecision(3)));
  }

  #say(): void {
    const format = this.#format;
    const codes = this.#codes;
    const rounding = roundTo(this.#x, format, codes);
    const { input, value, code, outcome } = rounding;
    byId('verdict').textContent = verdictOf(rounding, format);
    const line = this.#line;
    line.ariaValueMin = String(codes[0].value);
    line.ariaValueMax = String(codes.at(-1)!.value);
    line.ariaValueNow = String(Number.isNaN(input) ? 0 : Math.min(Math.max(input, codes[0].value), codes.at(-1)!.value));
    line.ariaValueText = `${show(input)}, kept as ${show(value)}`;
    this.#showBits(code, format);
    byId('formula').replaceChildren(...(outcome === 'nan' && format !== 'int8' ? ['NaN'] : this.#formula(code, value, format)));
    this.#draw();
  }

  #showBits(code: number, format: QuantizedFormat): void {
    const { sign, exponent, mantissa } = bitsOf(code, format);
    const names = format === 'int8' ? [['sign', sign, 'sign'], ['mantissa', mantissa, 'two’s complement']] : [['sign', sign, 'sign'], ['exponent', exponent, 'exponent'], ['mantissa', mantissa, 'mantissa']];
    const bits = byId('bits');
    bits.ariaLabel = `Code ${hex(code)}, bits: ${names.map(([, digits, name]) => `${name} ${digits}`).join(', ')}`;
    bits.replaceChildren(...names.map(([kind, digits, name]) => element('div', { class: kind }, element('div', { class: 'row' }, ...[...digits].map((digit) => element('b', {}, digit))), element('small', {}, name))));
  }

  #formula(code: number, value: number, format: QuantizedFormat): (Node | string)[] {
    if (format === 'int8') return [`= ${show(value)}`];
    const { sign, power, whole, part, of } = formulaOf(code, format);
    return [`${sign} 2`, element('sup', {}, show(power)), whole === 1 ? ` × (1 + ${part}/${of})` : ` × ${part}/${of}`, ` = ${show(value)}`];
  }

  #paint(): void {
    this.#paintLine();
    this.#paintNear();
  }

  /** All codes on the line, and the number among them. */
  #paintLine(): void {
    const width = this.#line.clientWidth;
    const { place } = this.#scale;
    const x = (value: number): number => MARGIN + ((Math.min(1, Math.max(-1, place(value))) + 1) / 2) * (width - 2 * MARGIN);
    const codes = this.#codes;
    const { value } = roundTo(this.#x, this.#format, codes);
    const ticks = codes.map((code) => `M${x(code.value).toFixed(1)} ${FLOOR}v-${code.code % 4 === 0 ? 16 : 10}`).join('');
    const thumb = Number.isNaN(this.#x) ? [] : [shape('path', { class: 'stem', d: `M${x(this.#x)} ${FLOOR}V20` }), shape('circle', { class: 'thumb', cx: x(this.#x), cy: 14, r: 8 })];
    const chosen = Number.isNaN(value) ? [] : [shape('path', { class: 'chosen', d: `M${x(value)} ${FLOOR}v-18` })];
    this.#line.replaceChildren(shape('svg', { height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, 'aria-hidden': 'true' },
      shape('path', { class: 'axis', d: `M${MARGIN} ${FLOOR}H${width - MARGIN}` }),
      shape('path', { class: 'tick', d: ticks }),
      ...this.#labels(x).map((label) => shape('text', { x: x(label), y: FLOOR + 18 }, show(label))),
      ...chosen, ...thumb));
  }

  /** Values that are written below the line, no two nearer to each other than there is room for. */
  #labels(x: (value: number) => number): number[] {
    const most = formats[this.#format].max;
    const powers = Array.from({ length: 36 }, (_, i) => 2 ** (15 - i)).filter((power) => power < most);
    const kept = [0, most, -most];
    for (const label of powers.flatMap((power) => [power, -power])) if (kept.every((other) => Math.abs(x(other) - x(label)) >= 58)) kept.push(label);
    return kept;
  }

  /** The codes next to the number, and the middle between them. */
  #paintNear(): void {
    const width = this.#near.clientWidth;
    const codes = this.#codes;
    const { input, code, below, above, outcome, value } = roundTo(this.#x, this.#format, codes);
    if (below === undefined || above === undefined) {
      this.#near.replaceChildren();
      return;
    }
    const at = codes.indexOf(below);
    const shown = outcome === 'exact' ? codes.slice(Math.max(0, at - 1), at + 2) : [below, above];
    const [first, last] = [shown[0].value, shown.at(-1)!.value];
    const side = Math.max(64, width * 0.14);
    const x = (each: number): number => side + ((each - first) / (last - first)) * (width - 2 * side);
    const floor = 58;
    const parts: SVGElement[] = [shape('path', { class: 'axis', d: `M${side / 2} ${floor}H${width - side / 2}` })];
    for (const [i, each] of shown.entries()) {
      const kept = each.value === value;
      parts.push(shape('path', { class: kept ? 'chosen' : 'code', d: `M${x(each.value)} ${floor}v-20` }), shape('text', { class: 'value', x: x(each.value), y: floor + 20 }, show(each.value)), shape('text', { x: x(each.value), y: floor + 37 }, hex(kept ? code : each.code)));
      const next = shown[i + 1];
      if (next) parts.push(shape('path', { class: 'half', d: `M${x((each.value + next.value) / 2)} ${floor}v-14` }));
    }
    const [from, to] = [x(input), x(value)];
    if (outcome !== 'exact') parts.push(shape('path', { class: 'way', d: `M${from} 24Q${(from + to) / 2} ${Math.max(2, 22 - Math.abs(to - from) / 6)} ${to} ${floor - 24}` }));
    parts.push(shape('path', { class: 'stem', d: `M${from} ${floor}V30` }), shape('circle', { class: 'thumb', cx: from, cy: 28, r: 7 }));
    this.#near.replaceChildren(shape('svg', { height: NEAR_HEIGHT, viewBox: `0 0 ${width} ${NEAR_HEIGHT}` }, ...parts));
  }
}

/** Brings the page's explorer to life. */
export const openExplorer = (): Explorer => new Explorer();
