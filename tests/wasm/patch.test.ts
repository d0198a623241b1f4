import { ok } from 'uvu/assert';
import { makePatch } from '../../scripts/patch.js';
import { applyPatch } from '../../src/wasm/patch.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('wasm/patch');

test('a patch makes one of another, whatever the two are', () => {
  const numbers = random(21);
  const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, () => numbers.bits() & 0xff);
  const whole = bytes(5000);
  const edited = Uint8Array.from([...whole.subarray(0, 700), 1, 2, 3, ...whole.subarray(690, 2000), ...bytes(300), ...whole.subarray(3000, 4999), ...whole.subarray(0, 100)]);
  for (const [from, to] of [[whole, whole], [whole, edited], [edited, whole], [whole, bytes(400)], [whole, new Uint8Array(0)], [new Uint8Array(0), whole], [new Uint8Array(300), new Uint8Array(500)]]) {
    assertSameBits(applyPatch(from, makePatch(from, to), to.length), to);
  }
  const { length } = makePatch(whole, edited);
  ok(length < 350, `300 new bytes and some places: ${length} bytes`);
});
