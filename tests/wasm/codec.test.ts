import { is, ok, throws } from 'uvu/assert';
import { decode, encode } from '../../src/index.js';
import { assertSameBits } from '../bits.js';
import { golden, nvidiaMap } from '../golden.js';
import { random } from '../random.js';
import { definitions, valueOf } from '../reference/codec.js';
import { suite } from '../suite.js';

const test = suite('wasm/codec');
const formats = ['e4m3fn', 'e5m2'] as const;
const modes = [
  ['satfinite', true],
  ['nosat', false],
] as const;

const floatsOf = (bits: Uint32Array): Float32Array => new Float32Array(bits.buffer);

for (const format of formats) {
  for (const [mode, saturate] of modes) {
    test(`${format} ${mode}: both sides of every boundary of NVIDIA's map`, () => {
      const { starts, codeOf } = nvidiaMap(format, mode);
      const bits = Uint32Array.from(starts.flatMap((start) => [start - 1, start, start + 1]).filter((pattern) => pattern >= 0));
      ok(starts.length > 240, `${starts.length} runs`);
      assertSameBits(encode(floatsOf(bits), format, { saturate }), Uint8Array.from(bits, codeOf));
    });

    test(`${format} ${mode}: a million random bit patterns`, () => {
      const { codeOf } = nvidiaMap(format, mode);
      const { bits } = random(1);
      const patterns = Uint32Array.from({ length: 1 << 20 }, bits);
      assertSameBits(encode(floatsOf(patterns), format, { saturate }), Uint8Array.from(patterns, codeOf), 'seed 1');
    });

    test(`${format} ${mode}: NVIDIA's answers for 103,756 chosen points`, () => {
      const inputs = new Float32Array(golden('codec/f32.inputs.u32le.bin').buffer);
      is(inputs.length, 103756);
      assertSameBits(encode(inputs, format, { saturate }), golden(`codec/f32.${format}.${mode}.u8.bin`));
    });

    test(`${format} ${mode}: all f16 and bf16 inputs, widened exactly`, () => {
      const { codeOf } = nvidiaMap(format, mode);
      const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
      const pattern = new Uint32Array(1);
      const value = floatsOf(pattern);
      const f16 = Uint8Array.from(halves, (half) => {
        value[0] = valueOf(half, definitions.f16);
        if (half === 0x8000) value[0] = -0;
        return codeOf(pattern[0]);
      });
      assertSameBits(encode(halves, format, { saturate, from: 'f16' }), f16, 'f16');
      assertSameBits(encode(halves, format, { saturate, from: 'bf16' }), Uint8Array.from(halves, (half) => codeOf((half << 16) >>> 0)), 'bf16');
    });
  }

  test(`${format}: all 256 codes decode to their values, NaN to 0x7FC00000`, () => {
    const codes = Uint8Array.from({ length: 256 }, (_, code) => code);
    const expected = Float32Array.from(codes, (code) => (code === 0x80 ? -0 : valueOf(code, definitions[format])));
    const bits = new Uint32Array(expected.buffer);
    for (let i = 0; i < 256; i++) if (Number.isNaN(expected[i])) bits[i] = 0x7fc00000;
    assertSameBits(decode(codes, format), expected);
    const lines = new TextDecoder().decode(golden(`codec/nvidia.${format}.txt`)).trim().split('\n');
    is(lines.length, 256);
    for (const [code, line] of lines.entries()) {
      const [hexCode, hexBits] = line.split(' ');
      is(Number.parseInt(hexCode, 16), code);
      if (!Number.isNaN(expected[code])) is(bits[code], Number.parseInt(hexBits, 16), line);
    }
  });

  test(`${format}: every code but NaN comes back from its value`, () => {
    for (let code = 0; code < 256; code++) {
      const [value] = decode(Uint8Array.of(code), format);
      const [again] = encode(Float32Array.of(value), format, { saturate: false });
      is(again, Number.isNaN(value) ? 0x7f : code);
    }
  });
}

test('special codes and halves among ordinary ones: each alone in its group of 16', () => {
  for (const format of formats) {
    for (let code = 0; code < 256; code++) {
      const codes = new Uint8Array(48).fill(0x3c);
      codes[16 + (code % 16)] = code;
      const alone = decode(Uint8Array.of(code), format);
      assertSameBits(decode(codes, format).subarray(16 + (code % 16), 17 + (code % 16)), alone, `${format} ${code}`);
      is(Number.isNaN(alone[0]) || Math.abs(alone[0]) === Infinity, Number.isNaN(valueOf(code, definitions[format])) || Math.abs(valueOf(code, definitions[format])) === Infinity);
    }
    for (const half of [0x7c00, 0xfc00, 0x7c01, 0xffff, 0x7bff, 0x8001, 0]) {
      const halves = new Uint16Array(48).fill(0x3c00);
      halves[21] = half;
      const expected = encode(Float32Array.of(half === 0 ? 0 : valueOf(half, definitions.f16)), format, { saturate: false })[0];
      is(encode(halves, format, { from: 'f16', saturate: false })[21], expected, `${format} half 0x${half.toString(16)}`);
      is(encode(halves, format, { from: 'f16' })[20], encode(Float32Array.of(1), format)[0]);
    }
  }
});

test('any length, given out, shared memory and views at odd offsets', () => {
  const x = random(2).normals(70001, 50);
  const whole = encode(x, 'e4m3fn');
  for (const length of [0, 1, 7, 8, 15, 16, 17, 31, 1000, 32767, 32768, 32769, 70001]) {
    const out = new Uint8Array(length + 9).subarray(9).fill(0xaa);
    is(encode(x.subarray(0, length), 'fp8', { out }), out);
    assertSameBits(out, whole.subarray(0, length), `length ${length}`);
    const values = new Float32Array(new SharedArrayBuffer(length * 4 + 4), 4);
    is(decode(out, 'fp8_e4m3', { out: values }), values);
    assertSameBits(Float32Array.from(values), decode(whole, 'e4m3fn').subarray(0, length));
  }
});

test('bad arguments are refused by name', () => {
  throws(() => encode(Float32Array.of(1e9), 'e4m3fn', { saturate: 'no' as never }), /"saturate" expected true or false, got "no"/);
  throws(() => encode(Float32Array.of(1), 'e4m3fn', 'f16' as never), /"options" expected an object, got "f16"/);
  throws(() => decode(Uint8Array.of(1), 'e4m3fn', null as never), /"options" expected an object, got null/);
  const x = Float32Array.of(1);
  throws(() => encode(x, 'e4m3fnuz' as 'e4m3fn'), /"format" expected one of e4m3fn.* got "e4m3fnuz"/);
  throws(() => encode(x, 'f16' as 'e5m2'), /"format" expected one of e4m3fn, e5m2, fp8, .*, got "f16"/);
  throws(() => encode([1] as unknown as Float32Array, 'e4m3fn'), /"x" expected a Float32Array.*got Array/);
  throws(() => encode(Uint16Array.of(1), 'e4m3fn'), /expected f16 or bf16, got undefined/);
  throws(() => encode(x, 'e4m3fn', { from: 'bf16' }), /expected a Uint16Array of bf16 bits/);
  throws(() => encode(x, 'e4m3fn', { out: new Uint8Array(2) }), /"out" expected length 1, got 2/);
  throws(() => decode(x as unknown as Uint8Array, 'e4m3fn'), /"codes" expected a Uint8Array, got Float32Array/);
  throws(() => decode(Uint8Array.of(1), 'e4m3fn', { out: new Uint8Array(1) as unknown as Float32Array }), /"out" expected a Float32Array, got Uint8Array/);
});
