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
