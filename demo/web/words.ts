/** Numbers, codes and roundings in words. */
import type { QuantizedFormat } from '../../src/formats.js';
import { decodeOne, type Rounding } from './codes.js';

/** A number as people write it. */
export function show(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : value > 0 ? '∞' : '−∞';
  if (Object.is(value, -0)) return '−0';
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-4 || size >= 1e6) ? Number(value.toPrecision(7)).toExponential() : String(Number(value.toPrecision(7)));
  return text.replaceAll('-', '−').replace('e+', 'e');
}

/** A code as engineers write it. */
export const hex = (code: number): string => `0x${code.toString(16).toUpperCase().padStart(2, '0')}`;

/** What a visitor typed, or undefined where that is no number. */
export function parseNumber(text: string): number | undefined {
  const plain = text.trim().replaceAll('−', '-').toLowerCase();
  if (plain === 'nan') return NaN;
  if (/^[+-]?(∞|inf(inity)?)$/.test(plain)) return plain.startsWith('-') ? -Infinity : Infinity;
  return plain !== '' && Number.isFinite(Number(plain)) ? Number(plain) : undefined;
}

/** How a number was rounded, in words. */
export function verdictOf({ input, code, value, outcome, below, above, unsaturated }: Rounding, format: QuantizedFormat): string {
  const kept = `${show(value)} (${hex(code)})`;
  const away = (from: number): string => show(Number(Math.abs(input - from).toPrecision(4)));
  const beyond = unsaturated === undefined ? '' : ` Without saturation it would be ${show(decodeOne(unsaturated, format))} (${hex(unsaturated)}).`;
  if (outcome === 'nan') return format === 'int8' ? 'int8 has no NaN: it becomes 0, and the call counts it.' : `NaN stays NaN (${hex(code)}), whatever its sign.`;
  if (outcome === 'exact') return Object.is(input, -0) && format !== 'int8' ? `−0 keeps its sign: ${hex(code)}.` : `${show(input)} is a code itself, ${hex(code)}: nothing is rounded.`;
  if (below === undefined || above === undefined) return `${show(input)} is beyond the last code: it becomes ${kept}, ${outcome === 'saturated' ? 'which is saturation' : 'the nearest'}.${beyond}`;
  const [chosen, other] = value === below.value ? [below, above] : [above, below];
  const way = chosen === below ? 'down' : 'up';
  if (outcome === 'tie') return `Exactly halfway between ${show(below.value)} and ${show(above.value)}: a tie goes ${way} to ${kept}, the code whose last bit is 0.`;
  const relative = input === 0 ? 0 : Math.abs(value - input) / Math.abs(input);
  return `Rounds ${way} to ${kept}, ${away(chosen.value)} away; ${show(other.value)} (${hex(other.code)}) is ${away(other.value)} away. The error is ${(100 * relative).toPrecision(2)} % of the number.`;
}
