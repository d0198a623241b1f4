/** Two vectors of elements like T's, by their size, into one: a0 b0 a1 b1 … Shuffles that are one instruction of the processor's. */

/** The lower halves of a and b. */
@inline
export function zipLow<T>(a: v128, b: v128): v128 {
  if (sizeof<T>() == 1) return v128.shuffle<i8>(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  if (sizeof<T>() == 2) return v128.shuffle<i16>(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  return v128.shuffle<i32>(a, b, 0, 4, 1, 5);
}

/** The upper halves. */
@inline
export function zipHigh<T>(a: v128, b: v128): v128 {
  if (sizeof<T>() == 1) return v128.shuffle<i8>(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  if (sizeof<T>() == 2) return v128.shuffle<i16>(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  return v128.shuffle<i32>(a, b, 2, 6, 3, 7);
}
