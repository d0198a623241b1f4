import { equal, is, match, ok } from 'uvu/assert';
import { decodePage, encodePage } from '../../src/cache/page-value.js';
import { FormatError, pageLayout, type PageLayout } from '../../src/index.js';
import { bytesOf } from '../../src/formats.js';
import type { NhdTensors } from '../../src/backend.js';
import { newTensors } from '../../src/tensors.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('cache, page values');
const numbers = random(11);

const key = '0123456789abcdef'.repeat(4);
const other = `f${key.slice(1)}`;

/** Every format, every kind of scales; of 3 tokens, so that nothing is aligned by chance. */
const layouts: readonly PageLayout[] = [
  pageLayout({ kvHeads: 1, headDim: 8, blockSize: 3 }),
  pageLayout({ kvHeads: 2, headDim: 16, blockSize: 3, k: { dtype: 'int8', granularity: 'group', groupSize: 8 }, v: { dtype: 'e5m2', granularity: 'head' } }),
  pageLayout({ kvHeads: 1, headDim: 8, blockSize: 3, k: { dtype: 'f16' }, v: { dtype: 'f32' } }),
];

/** Random bits, NaN of all kinds among them. */
function filled(layout: PageLayout): NhdTensors {
  const { tensors } = newTensors(layout, 1);
  for (const array of Object.values(tensors) as (ArrayBufferView | undefined)[]) if (array) bytesOf(array).forEach((_, i, bytes) => (bytes[i] = numbers.integer(256)));
  return tensors;
}

const tensors = layouts.map(filled);
const value = await encodePage(key, tensors);

function assertSame(actual: readonly NhdTensors[], expected = tensors): void {
  is(actual.length, expected.length);
  for (const [layer, { keyCache, valueCache, keyScale, valueScale }] of expected.entries()) {
    assertSameBits(actual[layer].keyCache, keyCache, `layer ${layer}, keys`);
    assertSameBits(actual[layer].valueCache, valueCache, `layer ${layer}, values`);
    for (const [got, scales] of [[actual[layer].keyScale, keyScale], [actual[layer].valueScale, valueScale]]) {
      if (scales) assertSameBits(got!, scales, `layer ${layer}, scales`);
      else is(got, undefined);
    }
  }
}

/** @param reason what the error must say, at this byte */
async function assertRefused(bytes: unknown, offset: number, reason: RegExp, wanted = key, of = layouts): Promise<void> {
  const error = await decodePage(bytes as Uint8Array, wanted, of).catch((thrown: unknown) => thrown);
  ok(error instanceof FormatError, String(error));
  equal([error.file, error.offset], ['page value', offset], error.message);
  match(error.message, reason);
}

test('what is written is read, whatever the formats', async () => {
  assertSame(await decodePage(value, key, layouts));
  is(value.length, 72 + tensors.flatMap((layer) => Object.values(layer) as (ArrayBufferView | undefined)[]).reduce((sum, part) => sum + (part?.byteLength ?? 0), 0));
  equal(await decodePage(await encodePage(key, []), key, []), []);
});

test('a value lies as the head of its file says', async () => {
  is(Buffer.from(value.subarray(0, 8)).toString('latin1'), 'FP8KVPG\u0001');
  is(Buffer.from(value.subarray(40, 72)).toString('hex'), key);
  const first = tensors[0];
  for (const [at, part] of [[72, first.keyCache], [96, first.valueCache], [120, first.keyScale!], [132, first.valueScale!]] as const) {
    assertSameBits(value.slice(at, at + part.byteLength), bytesOf(part));
  }
});

test('values of any kind are read, at any place, and the tensors are no part of them', async () => {
  const shifted = new Uint8Array(value.length + 1);
  shifted.set(value, 1);
  const shared = new Uint8Array(new SharedArrayBuffer(value.length));
  shared.set(value);
  for (const kind of [value.slice(), shifted.subarray(1), Buffer.from(value), value.slice().buffer, shared]) {
    const reading = decodePage(kind, key, layouts);
    (kind instanceof ArrayBuffer ? new Uint8Array(kind) : kind).fill(0);
    assertSame(await reading);
  }
});

test('a value with any bit flipped is refused', async () => {
  for (let bit = 0; bit < value.length * 8; bit++) {
    const flipped = value.slice();
    flipped[bit >> 3] ^= 1 << (bit & 7);
    await assertRefused(flipped, bit < 64 ? 0 : 8, bit < 64 ? /does not begin as a page of this version/ : /checksum/);
  }
});

test('a value that is cut or goes on is refused', async () => {
  for (let length = 8; length < value.length; length++) await assertRefused(value.slice(0, length), length, /bytes for these layers, got/);
  for (let length = 0; length < 8; length++) await assertRefused(value.slice(0, length), 0, /does not begin/);
  const longer = new Uint8Array(value.length + 1);
  longer.set(value);
  await assertRefused(longer, value.length, new RegExp(`expected ${value.length} bytes for these layers, got ${longer.length}`));
  await assertRefused(new ArrayBuffer(0), 0, /does not begin/);
});

test('a value of another key or of other layers is refused', async () => {
  await assertRefused(value, 40, new RegExp(`expected the page ${other}, got ${key}`), other);
  const wider = pageLayout({ kvHeads: 1, headDim: 16, blockSize: 3 });
  for (const of of [[], layouts.slice(1), [...layouts, layouts[0]], [wider, ...layouts.slice(1)]]) {
    const length = (await encodePage(key, of.map(filled))).length;
    await assertRefused(value, Math.min(length, value.length), new RegExp(`expected ${length} bytes for these layers, got ${value.length}`), key, of);
  }
});

test('what is no value is refused', async () => {
  for (const nothing of [undefined, null, 'FP8KVPG', 7, [70, 80]]) await assertRefused(nothing, 0, /expected a Uint8Array or an ArrayBuffer, got/);
});

test('what is no key is not written', async () => {
  for (const bad of ['', key.slice(1), `${key}0`, key.toUpperCase(), `${key}\n`, 'g'.repeat(64), undefined]) {
    const error = await encodePage(bad as string, []).catch((thrown: unknown) => thrown);
    ok(error instanceof RangeError && /"key" expected 64 hex digits/.test(error.message), String(error));
  }
});
