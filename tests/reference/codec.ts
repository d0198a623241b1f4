/** FP8 and half formats by their definitions, in plain numbers: slow, to be read. */

interface Definition {
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly bias: number;
  /** IEEE formats keep the top exponent for infinity and NaN; e4m3fn keeps only its last code. */
  readonly ieee: boolean;
}

export const definitions: { readonly [format in 'e4m3fn' | 'e5m2' | 'f16']: Definition } = {
  e4m3fn: { exponentBits: 4, mantissaBits: 3, bias: 7, ieee: false },
  e5m2: { exponentBits: 5, mantissaBits: 2, bias: 15, ieee: true },
  f16: { exponentBits: 5, mantissaBits: 10, bias: 15, ieee: true },
};

/** The f16 nearest to a number, ties to even, as bits. */
export function halfOf(x: number): number {
  if (Number.isNaN(x)) return 0x7e00;
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(x);
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
  const ulp = 2 ** (exponent - 10);
  const below = Math.floor(magnitude / ulp);
  const rest = magnitude / ulp - below;
  const units = below + (rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? 1 : 0);
  // A mantissa that is rounded up to the next power of two carries into the exponent.
  return sign | ((exponent + 14) * 1024 + units);
}

/** A code's value. */
export function valueOf(code: number, { exponentBits, mantissaBits, bias, ieee }: Definition): number {
  const mantissa = code & (2 ** mantissaBits - 1);
  const exponent = (code >> mantissaBits) & (2 ** exponentBits - 1);
  const sign = code >> (mantissaBits + exponentBits) ? -1 : 1;
  const top = 2 ** exponentBits - 1;
  if (exponent === top && ieee) return mantissa === 0 ? sign * Infinity : NaN;
  if (exponent === top && mantissa === 2 ** mantissaBits - 1) return NaN;
  if (exponent === 0) return sign * mantissa * 2 ** (1 - bias - mantissaBits);
  return sign * (1 + mantissa / 2 ** mantissaBits) * 2 ** (exponent - bias);
}
