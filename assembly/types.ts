/**
 * Formats, dtypes and operations as types, so that each combination compiles to a loop of its own: asc decides
 * `isSigned<T>()` and `sizeof<T>()` itself, before Binaryen can fold loops that only differ in a constant into one.
 */

/** FP8 formats: told apart by isSigned. */
export type E4M3FN = u8;
export type E5M2 = i8;

/** Integers as codes: told apart by sizeof, and from F32 by isFloat. */
export type INT8 = i32;

/** Dtypes of unquantized values, of their size: f32, f16 (unsigned 16 bits) and bf16 (signed 16 bits). */
export type F32 = f32;
export type F16 = u16;
export type BF16 = i16;

/** What happens to numbers on the way: told apart by sizeof. */
export type Keep = u8;
export type Divide = u16;
export type Multiply = u32;
export type Clamp = u64;

/** How many rows a kernel is compiled for: sizeof is that number. */
export type OneRow = u8;
export type TwoRows = u16;
export type FourRows = u32;
