/** The errors of stored keys and values, layer × head × position, and the KL above them: drawn on a canvas, read by pointer and keys. */
import { LEVELS, ramps, scaleOf, type Scale } from '../../src/evaluate/report/ramp.js';
import { divergence, error } from '../../src/evaluate/report/text.js';
import type { Errors, Pair, Started, Stored } from './compare.js';
import { byId, element, exactly, oncePerFrame } from './dom.js';

/** Left of the cells, where layers are named, and what KL and a gap take above them. */
const LEFT = 62;
const KL_HEIGHT = 46;
const TOP = KL_HEIGHT + 8;
/** Below them, where positions are counted. */
const BOTTOM = 20;
/** Between layers. */
const GAP = 2;
const LEAST_WIDTH = 3;
const MOST_WIDTH = 14;

interface Cell {
  readonly position: number;
  readonly layer: number;
  readonly head: number;
}

const steps: { readonly [key: string]: readonly [columns: number, rows: number] } = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const dark = matchMedia('(prefers-color-scheme: dark)');

export class HeatMap {
  readonly #canvas = byId<HTMLCanvasElement>('map');
  readonly #readout = byId('map-readout');
  readonly #legend = byId('legend');
  readonly #draw = oncePerFrame(() => this.#paint());
  #layers = 0;
  #heads = 0;
  #positions = 0;
  #tokens: string[] = [];
  #kl: number[] = [];
  #errors: Pair<Errors> | undefined;
  /** The least and largest of all errors that are no zeros: one scale for both caches. */
  #range: [number, number] = [Infinity, 0];
  #cursor: Cell | undefined;

  constructor() {
    const canvas = this.#canvas;
    canvas.addEventListener('pointermove', (event) => this.#point(event));
    canvas.addEventListener('pointerdown', (event) => this.#point(event));
    canvas.addEventListener('focus', () => this.#moveTo(this.#cursor ?? { position: 0, layer: 0, head: 0 }));
    canvas.addEventListener('keydown', (event) => this.#press(event));
    for (const input of document.querySelectorAll('[name=map-side], [name=map-part]')) {
      input.addEventListener('change', () => {
        this.#read();
        this.#draw();
      });
    }
    dark.addEventListener('change', this.#draw);
    new ResizeObserver(this.#draw).observe(byId('map-scroll'));
  }

  begin({ layers, kvHeads, positions, prompt }: Started): void {
    const empty = (): Errors => ({ k: new Float32Array(positions * layers * kvHeads), v: new Float32Array(positions * layers * kvHeads) });
    this.#layers = layers;
    this.#heads = kvHeads;
    this.#positions = positions;
    this.#tokens = [...prompt];
    this.#kl = [];
    this.#errors = [empty(), empty()];
    this.#range = [Infinity, 0];
    this.#cursor = undefined;
    this.#readout.textContent = 'Hover over a cell, or go there with the arrow keys.';
    this.#draw();
  }

  /** What a position holds. */
  name(piece: string): void {
    this.#tokens.push(piece);
  }

  add({ position, kl, errors }: Stored): void {
    const at = position * this.#layers * this.#heads;
    for (const [i, of] of errors.entries()) {
      for (const part of ['k', 'v'] as const) {
        this.#errors![i][part].set(of[part], at);
        for (const value of of[part]) if (value > 0 && Number.isFinite(value)) this.#range = [Math.min(this.#range[0], value), Math.max(this.#range[1], value)];
      }
    }
    this.#kl.push(...kl);
    this.#draw();
  }

  get #side(): 0 | 1 {
    return document.querySelector<HTMLInputElement>('[name=map-side]:checked')!.value === '0' ? 0 : 1;
  }

  get #part(): 'k' | 'v' {
    return document.querySelector<HTMLInputElement>('[name=map-part]:checked')!.value as 'k' | 'v';
  }

  /** Of a position: not whole, so that all of them are as wide as there is room for. */
  get #cellWidth(): number {
    const room = byId('map-scroll').clientWidth - LEFT;
    return Math.min(MOST_WIDTH, Math.max(LEAST_WIDTH, room / Math.max(1, this.#positions)));
  }

  /** Where a position begins: cells are whole pixels. */
  #leftOf(position: number): number {
    return LEFT + Math.round(position * this.#cellWidth);
  }

  get #cellHeight(): number {
    return this.#layers * this.#heads <= 24 ? 20 : 10;
  }

  #topOf(layer: number, head: number): number {
    return TOP + layer * (this.#heads * this.#cellHeight + GAP) + head * this.#cellHeight;
  }

  #errorAt({ position, layer, head }: Cell): number {
    return this.#errors![this.#side][this.#part][(position * this.#layers + layer) * this.#heads + head];
  }

  #paint(): void {
    const height = this.#cellHeight;
    const widthOf = (position: number): number => this.#leftOf(position + 1) - this.#leftOf(position);
    const box = { width: this.#leftOf(this.#positions), height: this.#topOf(this.#layers, 0) + BOTTOM };
    const canvas = this.#canvas;
    const context = canvas.getContext('2d')!;
    const { devicePixelRatio: ratio } = window;
    canvas.width = box.width * ratio;
    canvas.height = box.height * ratio;
    canvas.style.width = `${box.width}px`;
    canvas.style.height = `${box.height}px`;
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const colour = (name: string): string => style.getPropertyValue(`--${name}`);
    const colours = ramps[dark.matches ? 'dark' : 'light'];
    const scale = scaleOf(this.#range);

    // Not logarithmic: what stands out is what tells the caches apart.
    const most = Math.max(...this.#kl, Number.MIN_VALUE);
    context.fillStyle = colour('b');
    for (const [position, kl] of this.#kl.entries()) {
      const tall = (kl / most) * KL_HEIGHT;
      context.fillRect(this.#leftOf(position), KL_HEIGHT - tall, widthOf(position) - 1, tall);
    }
    context.fillStyle = colour('faint');
    context.fillRect(LEFT, KL_HEIGHT, box.width - LEFT, 1);
    for (let layer = 0; layer < this.#layers; layer++) {
      context.fillStyle = colour('faint');
      context.fillRect(LEFT, this.#topOf(layer, 0), box.width - LEFT, this.#heads * height);
      for (let head = 0; head < this.#heads; head++) {
        for (let position = 0; position < this.#kl.length; position++) {
          const value = this.#errorAt({ position, layer, head });
          if (value === 0) continue;
          context.fillStyle = Number.isFinite(value) ? colours[scale?.level(value) ?? 0] : colour('quiet');
          context.fillRect(this.#leftOf(position), this.#topOf(layer, head), widthOf(position), height);
        }
      }
    }
    this.#writeAxes(context, colour('quiet'), style.fontFamily);
    if (this.#cursor) {
      const { position, layer, head } = this.#cursor;
      context.strokeStyle = colour('ink');
      context.lineWidth = 2;
      context.strokeRect(this.#leftOf(position) - 1, this.#topOf(layer, head) - 1, widthOf(position) + 2, height + 2);
    }
    this.#writeLegend(scale, colours);
  }

  #writeAxes(context: CanvasRenderingContext2D, colour: string, family: string): void {
    context.fillStyle = colour;
    context.font = `12px ${family}`;
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    context.fillText('KL', LEFT - 8, KL_HEIGHT - 8);
    if (this.#kl.length > 0) context.fillText(divergence(Math.max(...this.#kl)), LEFT - 8, 8);
    const high = this.#heads * this.#cellHeight;
    const every = Math.max(1, Math.ceil(14 / (high + GAP)));
    for (let layer = 0; layer < this.#layers; layer += every) context.fillText(`layer ${layer}`, LEFT - 8, this.#topOf(layer, 0) + Math.min(high, every * high) / 2);
    context.textAlign = 'center';
    const apart = [5, 10, 20, 50, 100, 200, 500].find((step) => step * this.#cellWidth >= 40) ?? 1000;
    for (let position = 0; position < this.#positions; position += apart) context.fillText(`${position}`, LEFT + (position + 0.5) * this.#cellWidth, this.#topOf(this.#layers, 0) + BOTTOM / 2);
  }

  #writeLegend(scale: Scale | undefined, colours: readonly string[]): void {
    if (scale === undefined) {
      this.#legend.ariaLabel = 'No errors yet';
      this.#legend.replaceChildren();
      return;
    }
    const bar = element('canvas', { width: String(LEVELS), height: '1', 'aria-hidden': 'true' });
    const context = bar.getContext('2d')!;
    for (const [level, colour] of colours.entries()) {
      context.fillStyle = colour;
      context.fillRect(level, 0, 1, 1);
    }
    const ends = [error(scale.from), error(scale.to)];
    this.#legend.ariaLabel = `Colours go from an error of ${ends[0]} to ${ends[1]}, on a logarithmic scale`;
    this.#legend.replaceChildren(bar, element('div', { class: 'ends' }, ...ends.map((text) => element('span', {}, text))));
  }

  #point(event: PointerEvent): void {
    const { left, top } = this.#canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const position = Math.floor((x - LEFT) / this.#cellWidth);
    for (let layer = 0; layer < this.#layers; layer++) {
      const head = Math.floor((y - this.#topOf(layer, 0)) / this.#cellHeight);
      if (head >= 0 && head < this.#heads && position >= 0 && position < this.#kl.length) return this.#moveTo({ position, layer, head });
    }
  }

  #press(event: KeyboardEvent): void {
    const step = steps[event.key];
    const ends: { readonly [key: string]: number } = { Home: 0, End: this.#kl.length - 1 };
    if (this.#cursor === undefined || (step === undefined && !(event.key in ends))) return;
    event.preventDefault();
    const { position, layer, head } = this.#cursor;
    const [columns, rows] = step ?? [ends[event.key] - position, 0];
    const row = layer * this.#heads + head + rows;
    if (row < 0 || row >= this.#layers * this.#heads) return;
    this.#moveTo({ position: Math.min(Math.max(position + columns, 0), this.#kl.length - 1), layer: Math.floor(row / this.#heads), head: row % this.#heads });
    const scroll = byId('map-scroll');
    const x = this.#leftOf(this.#cursor.position);
    if (x < scroll.scrollLeft + LEFT || x + this.#cellWidth > scroll.scrollLeft + scroll.clientWidth) scroll.scrollLeft = x - scroll.clientWidth / 2;
  }

  #moveTo(cell: Cell): void {
    if (this.#kl.length === 0) return;
    this.#cursor = cell;
    this.#read();
    this.#draw();
  }

  #read(): void {
    if (this.#cursor === undefined) return;
    const { position, layer, head } = this.#cursor;
    const token = this.#tokens[position];
    const what = this.#part === 'k' ? 'Keys' : 'Values';
    this.#readout.replaceChildren(
      element('b', {}, exactly(this.#errorAt(this.#cursor), error(this.#errorAt(this.#cursor)))),
      ` ${what} of ${'AB'[this.#side]}, layer ${layer}, head ${head}, token ${position}${token ? ` “${token}”` : ''}. KL of what comes next: ${divergence(this.#kl[position])}.`,
    );
  }
}
