/** Scales of layers as a table, with bars. */
import type { KvScales } from '../kv-scales.js';
import { table } from './table.js';

/** Characters of the longest bar. */
const WIDTH = 8;
const EIGHTHS = '▏▎▍▌▋▊▉█';

type SideName = 'k' | 'v' | 'q';

const titles = { k: 'K scale', v: 'V scale', q: 'Q scale' } as const;

/** @param share of the longest bar, from 0 to 1; the shortest is still seen */
function bar(share: number): string {
  const eighths = Math.max(1, Math.round(share * WIDTH * 8));
  return `${'█'.repeat(eighths >> 3)}${eighths % 8 === 0 ? '' : EIGHTHS[(eighths % 8) - 1]}`.padEnd(WIDTH);
}

const short = (scale: number): string => `${Number(scale.toPrecision(4))}`;

/** `0.01 … 0.02`, or one number where they are equal. */
function range(scales: Float32Array): string {
  const [least, most] = [smallest(scales), largest(scales)];
  return least === most ? short(least) : `${short(least)} … ${short(most)}`;
}

const smallest = (scales: Float32Array): number => scales.reduce((a, b) => Math.min(a, b));
const largest = (scales: Float32Array): number => scales.reduce((a, b) => Math.max(a, b));

/**
 * A line per layer: each side's range, and a bar as long as the logarithm of its largest scale; the longest stands for a factor of 10
 * at least.
 * @param instead what to say of a side that has no scales of its own
 */
export function scaleTable({ layers }: Pick<KvScales, 'layers'>, instead: (layer: number, side: SideName) => string | undefined = () => undefined): string {
  const sides = layers.map(({ scale, qScale }) => ({ ...scale, q: qScale }));
  const shown = (['k', 'v', 'q'] as const).filter((side) => sides.some((layer) => layer[side]));
  const all = sides.flatMap((layer, index) => shown.flatMap((side) => (layer[side] && instead(index, side) === undefined ? [largest(layer[side])] : [])));
  const top = Math.max(...all);
  const bottom = Math.min(...all, top / 10);
  const share = (scale: number): number => Math.log(scale / bottom) / Math.log(top / bottom);
  const cells = (layer: number, side: SideName): string[] => {
    const scales = sides[layer][side];
    const said = scales === undefined ? '–' : instead(layer, side);
    return said === undefined ? [bar(share(largest(scales!))), range(scales!)] : [' '.repeat(WIDTH), said];
  };
  const lines = table(['layer', ...shown.flatMap((side) => ['', titles[side]])], layers.map((_, index) => [`${index}`, ...shown.flatMap((side) => cells(index, side))]));
  return all.length === 0 ? lines : `${lines}\nA bar is as long as the logarithm of a side's largest scale, from ${short(bottom)} to ${short(top)}.`;
}
