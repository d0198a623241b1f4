import { createHash } from 'node:crypto';
import { equal, is, match, ok } from 'uvu/assert';
import { parseSafetensors } from '../../src/files/safetensors.js';
import { serializeHeader } from '../../src/files/safetensors-header.js';
import { layerTensors, type SnapshotHead, type SnapshotLayer } from '../../src/files/snapshot-head.js';
import { readSnapshot, writeSnapshot, type SnapshotLayerTensors } from '../../src/files/snapshot.js';
import type { ByteSource } from '../../src/files/byte-stream.js';
import type { Tensor } from '../../src/files/tensor.js';
import { bytesOf } from '../../src/formats.js';
import { FormatError, recipes } from '../../src/index.js';
import { codeArrays } from '../../src/tensors.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { suite } from '../suite.js';
import { concat, mutations } from './attacks/attack.js';

const test = suite('files/snapshot');
const numbers = random(7);

const hash = (digit: string): string => digit.repeat(64);
const amax = { ...recipes.amax };
const own = { name: 'my own', amaxFloor: 1e-12, scaleFloor: 5e-7, scaleIfZero: 0.5, quotient: 'max-over-amax', int8: { divisor: 127.5, least: -128 }, scalePrecision: 'f16-stored' } as const;

/** As small as heads are. */
const smallHead: SnapshotHead = {
  version: 1,
  chain: { root: hash('5'), blockSize: 2 },
  layers: [{ group: 0, kvHeads: 1, headDim: 8, k: { format: 'e4m3fn', granularity: 'token-head', recipe: amax }, v: { format: 'e5m2', granularity: 'tensor', givenScales: 1 } }],
  groups: [{ tokens: 3 }],
  sequences: [{ length: 3, held: [{ sinks: 0, floor: 0, end: 3, runs: [[1, 2], [0, 1]] }], hashes: [hash('a')] }],
};

/** All that a head can say. */
const fullHead: SnapshotHead = {
  version: 1,
  chain: { root: hash('6'), blockSize: 4 },
  layers: [
    smallHead.layers[0],
    {
      group: 1, kvHeads: 2, headDim: 16, window: 6, sinkTokens: 2,
      k: { format: 'int8', granularity: 'group', groupSize: 8, recipe: own }, v: { format: 'e4m3fn', granularity: 'head', givenScales: 2 },
      residual: { group: 2, tokens: 4, dtype: 'f16', rule: 'all at once' },
    },
    {
      group: 0, kvHeads: 1, headDim: 8, k: { format: 'int8', granularity: 'channel', givenScales: 8 }, v: { format: 'e5m2', granularity: 'token-head', recipe: { ...recipes['mila-activation'] } },
      residual: { group: 2, tokens: 1, dtype: 'f32', rule: '' },
    },
    { group: 3, kvHeads: 3, headDim: 24, k: { format: 'f16', granularity: 'tensor' }, v: { format: 'f32', granularity: 'tensor' } },
    { group: 0, kvHeads: 2, headDim: 8, k: { format: 'e4m3fn', granularity: 'head', givenScales: 1 }, v: { format: 'e4m3fn', granularity: 'channel' } },
  ],
  groups: [{ tokens: 14 }, { tokens: 9 }, { tokens: 5 }, { tokens: 0 }],
  sequences: [
    {
      length: 10, due: true, hashes: [hash('0'), hash('f')],
      held: [
        { sinks: 0, floor: 0, end: 10, runs: [[4, 6], [0, 4]] },
        { sinks: 2, floor: 4, end: 9, runs: [[0, 7]] },
        { sinks: 0, floor: 9, end: 10, runs: [[4, 1]] },
        { sinks: 0, floor: 0, end: 0, runs: [] },
      ],
    },
    // Shares rows with the first.
    { length: 6, due: false, held: [{ sinks: 0, floor: 0, end: 6, runs: [[4, 6]] }, { sinks: 0, floor: 0, end: 0, runs: [] }, { sinks: 0, floor: 6, end: 6, runs: [] }, { sinks: 0, floor: 0, end: 0, runs: [] }] },
    { length: 0, held: [0, 1, 2, 3].map(() => ({ sinks: 0, floor: 0, end: 0, runs: [] })), hashes: [] },
  ],
};

/** Random bits for all tensors of a layer. */
function filled(head: SnapshotHead, index: number): SnapshotLayerTensors {
  const tensors = layerTensors(head, index).map(({ part, format, shape }) => {
    const array = new codeArrays[format](shape.reduce((a, b) => a * b, 1));
    bytesOf(array).forEach((_, i, bytes) => (bytes[i] = numbers.integer(256)));
    return [part, array] as const;
  });
  return Object.fromEntries(tensors) as unknown as SnapshotLayerTensors;
}

const layersOf = (head: SnapshotHead): SnapshotLayerTensors[] => head.layers.map((_, index) => filled(head, index));

async function write(head: SnapshotHead, layers: readonly SnapshotLayerTensors[]): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of writeSnapshot(head, (index) => layers[index])) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

interface Read {
  head: SnapshotHead | undefined;
  readonly layers: SnapshotLayerTensors[];
}

async function read(source: ByteSource, into: Read = { head: undefined, layers: [] }): Promise<Read> {
  await readSnapshot(source, 'file', {
    head: (head) => {
      into.head = head;
    },
    layer: (index, tensors) => {
      is(index, into.layers.length);
      into.layers.push(tensors);
    },
  });
  return into;
}

function assertSameLayers(actual: readonly SnapshotLayerTensors[], expected: readonly SnapshotLayerTensors[]): void {
  is(actual.length, expected.length);
  for (const [index, layer] of expected.entries()) {
    equal(Object.keys(actual[index]), Object.keys(layer));
    for (const [part, array] of Object.entries(layer)) assertSameBits(actual[index][part as keyof SnapshotLayerTensors]!, array, `layer ${index}, ${part}`);
  }
}

async function* inChunks(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** The error of a file that must be refused: a FormatError inside it, of sane length. */
async function refused(source: ByteSource, length: number, what: string): Promise<FormatError> {
  const error = await read(source).then(() => undefined, (reason: unknown) => reason);
  ok(error instanceof FormatError, `${what}: expected a FormatError, got ${String(error)}`);
  ok(error.offset >= 0 && error.offset <= length, `${what}: offset ${error.offset}`);
  ok(error.message.length < 1000, `${what}: the message has ${error.message.length} characters`);
  return error;
}

const small = await write(smallHead, layersOf(smallHead));
const fullLayers = layersOf(fullHead);
const full = await write(fullHead, fullLayers);

test('what is written is read, with all that a head can say', async () => {
  const { head, layers } = await read(full);
  equal(head, fullHead);
  assertSameLayers(layers, fullLayers);
  equal((await read(small)).head, smallHead);
});

test('fields that are undefined are absent, and the version may stand anywhere', async () => {
  const { version, ...rest } = smallHead;
  const layers: SnapshotLayer[] = [{ ...smallHead.layers[0], window: undefined, residual: undefined }];
  assertSameBits(await write({ ...rest, layers, version, chain: { ...smallHead.chain! } }, (await read(small)).layers), small);
});

test('the file is one of .safetensors, with its tensors in the documented order', async () => {
  const { tensors, metadata } = parseSafetensors(full, 'file');
  equal([...metadata.keys()], ['fp8_kv_snapshot']);
  equal(JSON.parse(metadata.get('fp8_kv_snapshot')!), fullHead);
  const shown = [...tensors].map(([name, { dtype, shape }]) => `${name} ${dtype} ${shape.join()}`);
  equal(shown, [
    'layers.0.key F8_E4M3 14,1,8', 'layers.0.value F8_E5M2 14,1,8', 'layers.0.key_scale F32 14,1', 'layers.0.v_scale F32 1',
    'layers.1.key I8 9,2,16', 'layers.1.value F8_E4M3 9,2,16', 'layers.1.key_scale F32 9,2,2', 'layers.1.v_scale F32 2',
    'layers.1.residual.key F16 5,2,16', 'layers.1.residual.value F16 5,2,16',
    'layers.2.key I8 14,1,8', 'layers.2.value F8_E5M2 14,1,8', 'layers.2.value_scale F32 14,1', 'layers.2.k_scale F32 1,8',
    'layers.2.residual.key F32 5,1,8', 'layers.2.residual.value F32 5,1,8',
    'layers.3.key F16 0,3,24', 'layers.3.value F32 0,3,24',
    'layers.4.key F8_E4M3 14,2,8', 'layers.4.value F8_E4M3 14,2,8', 'layers.4.k_scale F32 1',
    'checksums U8 6,32',
  ]);
  assertSameBits(tensors.get('layers.1.residual.key')!.data, bytesOf(fullLayers[1].residualKey!));
  const begins = [...tensors.values()].map(({ data }) => data.byteOffset);
  equal(begins, [...begins].sort((a, b) => a - b));
  is(begins[0] % 8, 0);
});

test('checksums are SHA-256 of the SHA-256s of each MiB: of each layer, and of the header', async () => {
  const { tensors } = parseSafetensors(small, 'file');
  const dataStart = tensors.get('layers.0.key')!.data.byteOffset;
  const at = tensors.get('checksums')!.data.byteOffset;
  const sha = (bytes: Uint8Array): Uint8Array => new Uint8Array(createHash('sha256').update(bytes).digest());
  const checksum = (bytes: Uint8Array): Uint8Array => sha(sha(bytes));
  assertSameBits(tensors.get('checksums')!.data, concat(checksum(small.subarray(dataStart, at)), checksum(small.subarray(0, dataStart))));
});

test('bytes come from anywhere, in chunks of any size and kind', async () => {
  const shared = new Uint8Array(new SharedArrayBuffer(full.length));
  shared.set(full);
  const stream = (size: number): ReadableStream<Uint8Array> => new Blob([full.slice()]).stream().pipeThrough(new TransformStream({
    transform: (chunk: Uint8Array, controller) => {
      for (let at = 0; at < chunk.length; at += size) controller.enqueue(chunk.subarray(at, at + size));
    },
  }));
  // The memory of a chunk is used for the next.
  async function* reused(): AsyncGenerator<Uint8Array> {
    const chunk = new Uint8Array(5);
    for (let at = 0; at < full.length; at += 5) {
      const part = full.subarray(at, at + 5);
      chunk.set(part);
      yield chunk.subarray(0, part.length);
      yield new Uint8Array(0);
    }
  }
  const sources: ByteSource[] = [
    Buffer.from(full), shared, new Blob([full.slice()]), stream(4096), stream(3), reused(), inChunks(Buffer.from(full), 100), inChunks(shared, 7),
    ...[1, 7, 4096].map((size) => inChunks(full, size)),
  ];
  for (const source of sources) {
    const { head, layers } = await read(source);
    equal(head, fullHead);
    assertSameLayers(layers, fullLayers);
  }
});

test('writes at most 1 MiB at a time, and asks for a layer when those before it are written', async () => {
  const layer: SnapshotLayer = { group: 0, kvHeads: 4, headDim: 128, k: { format: 'f32', granularity: 'tensor' }, v: { format: 'f32', granularity: 'tensor' } };
  const head: SnapshotHead = { version: 1, layers: [layer, layer], groups: [{ tokens: 1000 }], sequences: [] };
  const layers = layersOf(head);
  let written = 0;
  const askedAt: number[] = [];
  const chunks: Uint8Array[] = [];
  for await (const chunk of writeSnapshot(head, async (index) => (askedAt.push(written), layers[index]))) {
    ok(chunk.length <= 2 ** 20, `${chunk.length} bytes`);
    written += chunk.length;
    chunks.push(chunk);
  }
  is(askedAt[1] - askedAt[0], 2 * 1000 * 4 * 128 * 4);
  assertSameLayers((await read(inChunks(Buffer.concat(chunks), 65_537))).layers, layers);
});

test('a layer is read when the one before it was taken', async () => {
  let given = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const chunk of inChunks(full, 16)) {
      given += chunk.length;
      yield chunk;
    }
  }
  const { tensors } = parseSafetensors(full, 'file');
  await readSnapshot(counted(), 'file', {
    head: () => undefined,
    layer: async (index) => {
      const before = given;
      await new Promise((resolve) => setTimeout(resolve, 1));
      const next = tensors.get(`layers.${index + 1}.key`) ?? tensors.get('checksums')!;
      ok(given === before && given - next.data.byteOffset < 16, `layer ${index}: ${given}`);
    },
  });
  is(given, full.length);
});

test('a file cut at any byte is refused, whole or in chunks', async () => {
  for (let length = 0; length < small.length; length++) {
    const error = await refused(small.slice(0, length), length, `cut to ${length}`);
    equal((await refused(inChunks(small.slice(0, length), 64), length, `cut to ${length}`)).message, error.message);
  }
});

test('a file that goes on is refused at its end', async () => {
  const error = await refused(concat(small, Uint8Array.of(0)), small.length + 1, 'longer');
  is(error.message, `file, byte ${small.length}: the file goes on after its last tensor`);
});

test('a file with any bit flipped is refused', async () => {
  for (let bit = 0; bit < small.length * 8; bit++) {
    const flipped = small.slice();
    flipped[bit >> 3] ^= 1 << (bit & 7);
    await refused(flipped, flipped.length, `bit ${bit}`);
  }
}, { seconds: 300 });

test('a file with some bytes replaced is refused', async () => {
  for (const bytes of mutations(full, 2000, 5)) if (!Buffer.from(bytes).equals(full)) await refused(bytes, bytes.length, 'mutation');
});

const layerTensorsOf = (head: SnapshotHead): [string, Pick<Tensor, 'dtype' | 'shape'>][] =>
  [...parseSafetensors(head === smallHead ? small : full, 'file').tensors].map(([name, { dtype, shape }]) => [name, { dtype, shape }]);

/** A file of this head's text and these tensors, whose data are zeros. */
function forged(text: string, tensors = layerTensorsOf(smallHead)): Uint8Array {
  return concat(serializeHeader(tensors, new Map([['fp8_kv_snapshot', text]])), new Uint8Array(1000));
}

async function assertRefused(bytes: Uint8Array, reason: RegExp): Promise<void> {
  const into: Read = { head: undefined, layers: [] };
  const error = await read(bytes, into).then(() => undefined, (thrown: unknown) => thrown as Error);
  ok(error instanceof FormatError, `${String(reason)}: ${String(error)}`);
  match(error.message, reason);
  ok(error.message.length < 1000 && !error.message.includes('\n'), error.message);
  is(into.head, undefined, `${String(reason)}: nothing is handed out`);
}

test('a header that has other tensors than the head says is refused', async () => {
  const text = JSON.stringify(smallHead);
  const tensors = layerTensorsOf(smallHead);
  const changed = (index: number, change: Partial<Tensor>, name = tensors[index][0]): Uint8Array => forged(text, tensors.map((tensor, i) => (i === index ? [name, { ...tensor[1], ...change }] : tensor)));
  const refusals: [Uint8Array, RegExp][] = [
    [forged(text, [tensors[1], tensors[0], ...tensors.slice(2)]), /expected tensor "layers.0.key", F8_E4M3 \[3, 1, 8\] in 0…24, got "layers.0.value", F8_E5M2/],
    [forged(text, [...tensors, ['more', { dtype: 'U8', shape: [0] }]]), /expected no tensor after "checksums", got "more"/],
    [forged(text, tensors.filter(([name]) => name !== 'layers.0.v_scale')), /expected tensor "layers.0.v_scale", F32 \[1\] in 60…64, got "checksums"/],
    [forged(text, tensors.slice(0, -1)), /expected tensor "checksums", U8 \[2, 32\] in 64…128, got no more/],
    [forged(text, []), /expected tensor "layers.0.key", .*, got no more/],
    [changed(0, { shape: [3, 8, 1] }), /expected tensor "layers.0.key", F8_E4M3 \[3, 1, 8\] in 0…24, got "layers.0.key", F8_E4M3 \[3, 8, 1\]/],
    [changed(0, { dtype: 'F8_E5M2' }), /got "layers.0.key", F8_E5M2/],
    [changed(0, {}, 'layers.1.key'), /got "layers.1.key"/],
    [changed(0, {}, `layers.0.key${'y'.repeat(1000)}`), /got "layers.0.keyyyy/],
    [changed(4, { shape: [64] }), /expected tensor "checksums", U8 \[2, 32\] in 64…128, got "checksums", U8 \[64\]/],
    [concat(serializeHeader(tensors, new Map())), /metadata "fp8_kv_snapshot" expected a head, got none/],
  ];
  for (const [bytes, reason] of refusals) await assertRefused(bytes, reason);
  const shifted = Buffer.from(small).toString('latin1').replace('"data_offsets":[0,24]', '"data_offsets":[1,24]');
  await assertRefused(Uint8Array.from(Buffer.from(shifted, 'latin1')), /in 0…24, got "layers.0.key", F8_E4M3 \[3, 1, 8\] in 1…24/);
});

/** A head with something else in place of what is there: `from` must be in its text. */
function replaced(from: string, to: string, head = smallHead): string {
  const text = JSON.stringify(head);
  ok(text.includes(from), from);
  return text.replace(from, () => to);
}

const hostile: readonly (readonly [name: string, text: string, reason: RegExp])[] = [
  ['no head', '', /expected {/],
  ['an array', '[]', /expected {/],
  ['an empty object', '{}', /the head has no version/],
  ['text behind', `${JSON.stringify(smallHead)} x`, /goes on after its last }/],
  ['version 2', replaced('"version":1', '"version":2'), /version expected 1, got 2/],
  ['version 2 with other fields', '{"version":2,"tables":[]}', /version expected 1, got 2/],
  ['no version', replaced('"version":1,', ''), /the head has no version/],
  ['a version in quotes', replaced('"version":1', '"version":"1"'), /not a non-negative integer/],
  ['no layers', replaced(JSON.stringify(smallHead.layers), '[]'), /layers expected at least 1, got 0/],
  ['an unknown field', replaced('"version":1', '"version":1,"more":1'), /unknown field "more"/],
  ['__proto__', replaced('"version":1', '"version":1,"__proto__":{"version":1}'), /unknown field "__proto__"/],
  ['__proto__ in a layer', replaced('"kvHeads":1', '"__proto__":{"kvHeads":1}'), /layers\[0\] has an unknown field "__proto__"/],
  ['constructor', replaced('"kvHeads":1', '"constructor":1'), /unknown field "constructor"/],
  ['a key that comes twice', replaced('"kvHeads":1', '"kvHeads":1,"kvHeads":1'), /the key "kvHeads" comes twice/],
  ['a key that comes twice, once escaped', replaced('"kvHeads":1', '"kvHeads":1,"kv\\u0048eads":1'), /the key "kvHeads" comes twice/],
  ['100,000 arrays in each other', replaced('"layers":[', `"layers":${'['.repeat(100_000)}`), /expected {/],
  ['100,000 objects in each other', replaced('"kvHeads":1', `"kvHeads":${'{"a":'.repeat(100_000)}`), /not a non-negative integer/],
  ['100,000 arrays where runs are', replaced('"runs":[[1,2]', `"runs":[[1,${'['.repeat(100_000)}`), /not a non-negative integer/],
  ['a long list where a run is', replaced('[1,2]', `[${'1,'.repeat(100_000)}1]`), /runs\[0\] expected 2 integers, got more/],
  ['a run of one', replaced('[1,2]', '[1]'), /runs\[0\] expected 2 integers/],
  ['null for a side', replaced('"k":{', '"k":null,"x":{'), /expected {/],
  ['a string without end', '{"version":1,"layers":"', /not an array|no end/],
  ...['-1', '1.5', '1e3', '01', 'NaN', 'Infinity', 'true', '"1"', '[]', '{}', ''].map((bad) => [`kvHeads of ${bad}`, replaced('"kvHeads":1', `"kvHeads":${bad}`), /not a non-negative integer|expected , or }/] as const),
  ['2^53 KV heads', replaced('"kvHeads":1', '"kvHeads":9007199254740992'), /number over 2\^53 - 1/],
  ['a number of 100,000 digits', replaced('"kvHeads":1', `"kvHeads":${'9'.repeat(100_000)}`), /number over 2\^53 - 1/],
  ['no KV heads', replaced('"kvHeads":1', '"kvHeads":0'), /kvHeads expected at least 1, got 0/],
  ['too many KV heads', replaced('"kvHeads":1', '"kvHeads":65537'), /layers\[0\]: "kvHeads" expected an integer from 1 to 65536/],
  ['a headDim that none has', replaced('"headDim":8', '"headDim":12'), /"headDim" expected a multiple of 8/],
  ['an alias of a format', replaced('"format":"e4m3fn"', '"format":"fp8"'), /layers\[0\]\.k\.format expected one of e4m3fn, .*, got "fp8"/],
  ['toString as a format', replaced('"format":"e4m3fn"', '"format":"toString"'), /got "toString"/],
  ['a long format', replaced('"format":"e4m3fn"', `"format":"${'x'.repeat(10_000)}"`), /got "xxx/],
  ['an unknown granularity', replaced('"granularity":"token-head"', '"granularity":"row"'), /k\.granularity expected one of/],
  ['scales of f16', replaced('"format":"e4m3fn"', '"format":"f16"'), /"k.granularity" expected tensor for f16/],
  ['groups without a size', replaced('"granularity":"token-head"', '"granularity":"group"'), /"k.groupSize" expected a multiple of 8 that divides headDim/],
  ['a group size without groups', replaced('"granularity":"token-head"', '"granularity":"token-head","groupSize":8'), /"k.groupSize" expected to be absent/],
  ['no recipe where scales are computed', replaced(`,"recipe":${JSON.stringify(amax)}`, ''), /k\.recipe expected to be there with granularity token-head/],
  ['a recipe where scales are given', replaced('"granularity":"tensor"', `"granularity":"tensor","recipe":${JSON.stringify(amax)}`), /v\.recipe expected to be absent with granularity tensor/],
  ['given scales where they are computed', replaced('"granularity":"token-head"', '"granularity":"token-head","givenScales":1'), /k\.givenScales expected to be absent with e4m3fn of granularity token-head/],
  ['given scales of f32', replaced('"format":"e5m2"', '"format":"f32"'), /v\.givenScales expected to be absent with f32/],
  ['more given scales than there can be', replaced('"givenScales":1', '"givenScales":2'), /v\.givenScales expected 1, got 2/],
  ['other given scales than there can be', replaced('"givenScales":8', '"givenScales":7', fullHead), /layers\[2\]\.k\.givenScales expected 1 or 8, got 7/],
  ['a negative floor', replaced('"amaxFloor":0', '"amaxFloor":-1'), /"recipe.amaxFloor" expected a finite number of at least 0/],
  ['an infinite floor', replaced('"amaxFloor":0', '"amaxFloor":1e999'), /k\.recipe\.amaxFloor is not a number/],
  ['a floor that is f32 infinity', replaced('"amaxFloor":0', '"amaxFloor":1e39'), /"recipe.amaxFloor" expected a finite number/],
  ['a floor in hex', replaced('"amaxFloor":0', '"amaxFloor":0x1'), /amaxFloor is not a number|expected , or }/],
  ['a floor of 100,000 digits', replaced('"amaxFloor":0', `"amaxFloor":0.${'0'.repeat(100_000)}`), /expected , or }/],
  ['an unknown quotient', replaced('"quotient":"divide"', '"quotient":"times"'), /recipe\.quotient expected one of/],
  ['int8 codes down to -129', replaced('"least":-127', '"least":-129'), /"recipe.int8.least" expected -127 or -128/],
  ['a recipe for int8 only', replaced('"scaleFloor":0', '"scaleFloor":0,"int8Only":true'), /"recipe" expected .* for e4m3fn, got amax/],
  ['int8Only of 1', replaced('"scaleFloor":0', '"scaleFloor":0,"int8Only":1'), /int8Only is neither true nor false/],
  ['a long name', replaced('"name":"amax"', `"name":"${'a'.repeat(65)}"`), /recipe\.name expected at most 64 characters, got 65/],
  ['a group that is not there', replaced('"group":0', '"group":1'), /layers\[0\]\.group expected one of 1 groups, got 1/],
  ['a residual\'s group that is not there', replaced('"group":2', '"group":4', fullHead), /layers\[1\]\.residual\.group expected one of 4 groups, got 4/],
  ['a residual of bf16', replaced('"dtype":"f16"', '"dtype":"bf16"', fullHead), /residual\.dtype expected one of f16, f32, got "bf16"/],
  ['2^53 - 1 rows', replaced('"tokens":3', '"tokens":9007199254740991'), /the tensors have over 2\^53 - 1 bytes/],
  ['2^50 rows', replaced('"tokens":3', '"tokens":1125899906842624'), /the tensors have over 2\^53 - 1 bytes/],
  ['no groups', replaced('"groups":[{"tokens":3}]', '"groups":[]'), /layers\[0\]\.group expected one of 0 groups/],
  ['groups that the sequence does not know', replaced('"groups":[{"tokens":3}]', '"groups":[{"tokens":3},{"tokens":0}]'), /sequences\[0\]\.held expected 2 groups, got 1/],
  ['a run that is out of range', replaced('[1,2]', '[2,2]'), /runs\[0\] expected to end within 3 rows, got 2 from 2/],
  ['a run far out of range', replaced('[1,2]', '[9007199254740991,9007199254740991]'), /runs\[0\] expected to end within 3 rows/],
  ['a run from -1', replaced('[1,2]', '[-1,2]'), /not a non-negative integer/],
  ['a run from 0.5', replaced('[1,2]', '[0.5,2]'), /not a non-negative integer/],
  ['a run of none', replaced('[1,2]', '[1,0]'), /runs\[0\] expected at least 1, got 0/],
  ['a run too few', replaced('[[1,2],[0,1]]', '[[1,2]]'), /held\[0\]\.runs expected 3 rows, got 2/],
  ['a run too many', replaced('[[1,2],[0,1]]', '[[1,2],[0,1],[0,1]]'), /held\[0\]\.runs expected 3 rows, got more/],
  ['a row twice', replaced('[[1,2],[0,1]]', '[[1,2],[2,1]]'), /held\[0\]\.runs expected no row twice, got row 2/],
  ['a length that is too small', replaced('"length":3', '"length":2'), /held\[0\] expected sinks ≤ floor ≤ end ≤ 2, got 0, 0, 3/],
  ['sinks above the floor', replaced('"sinks":0', '"sinks":1'), /expected sinks ≤ floor ≤ end ≤ 3, got 1, 0, 3/],
  ['a floor above the end', replaced('"floor":0', '"floor":4'), /expected sinks ≤ floor ≤ end ≤ 3, got 0, 4, 3/],
  ['more hashes than pages', replaced(`["${hash('a')}"]`, `["${hash('a')}","${hash('b')}"]`), /hashes expected at most 1, as there are full pages, got 2/],
  ['hashes without a chain', replaced(`"chain":{"root":"${hash('5')}","blockSize":2},`, ''), /chain expected to be there, as sequences\[0\] has hashes/],
  ['a page size of 0', replaced('"blockSize":2', '"blockSize":0'), /blockSize expected at least 1, got 0/],
  ['a window of none', replaced('"window":6', '"window":0', fullHead), /window expected at least 1, got 0/],
  ['a root that is none', replaced(hash('5'), '5'), /chain\.root expected 64 hex digits, got "5"/],
  ['a hash in capitals', replaced(hash('a'), hash('A')), /hashes\[0\] expected 64 hex digits/],
  ['a short hash', replaced(hash('a'), 'a'), /hashes\[0\] expected 64 hex digits, got "a"/],
  ['due that is 1', replaced('"due":true', '"due":1', fullHead), /sequences\[0\]\.due is neither true nor false/],
];

for (const [name, text, reason] of hostile) test(`refuses a head: ${name}`, () => assertRefused(forged(text), reason));

test('a tensor that claims 2^40 rows costs what is there of it', async () => {
  const head = JSON.parse(replaced('"tokens":3', `"tokens":${2 ** 40}`)) as SnapshotHead;
  const tensors = layerTensors(head, 0).map(({ name, dtype, shape }): [string, Pick<Tensor, 'dtype' | 'shape'>] => [name, { dtype, shape }]);
  const bytes = forged(JSON.stringify(head), [...tensors, ['checksums', { dtype: 'U8', shape: [2, 32] }]]);
  const before = process.memoryUsage().arrayBuffers;
  match((await refused(bytes, bytes.length, '2^40 rows')).message, /the file ends at least \d+ bytes too early/);
  ok(process.memoryUsage().arrayBuffers - before < 2 ** 24);
});

test('a header that claims to be long costs what is there of it', async () => {
  for (const [claim, reason] of [[100_000_000n, /the file ends at least 99999998 bytes too early/], [100_000_001n, /the limit is 100000000/], [2n ** 64n - 1n, /the limit is/]] as const) {
    const bytes = new Uint8Array(10);
    new DataView(bytes.buffer).setBigUint64(0, claim, true);
    const before = process.memoryUsage().arrayBuffers;
    match((await refused(bytes, 10, 'claim')).message, reason);
    ok(process.memoryUsage().arrayBuffers - before < 2 ** 24);
  }
});

test('what the sink throws ends the reading, and the source is told', async () => {
  for (const place of ['head', 'layer'] as const) {
    const told: string[] = [];
    async function* iterable(): AsyncGenerator<Uint8Array> {
      try {
        yield* inChunks(full, 50);
      } finally {
        told.push('iterable');
      }
    }
    const stream = new ReadableStream<Uint8Array>({ start: (controller) => controller.enqueue(full), cancel: () => void told.push('stream') });
    for (const source of [iterable(), stream]) {
      const refuse = (): never => {
        throw new RangeError('does not fit');
      };
      const error = await readSnapshot(source, 'file', { head: () => undefined, layer: () => undefined, [place]: refuse }).then(() => undefined, (thrown: unknown) => thrown);
      ok(error instanceof RangeError && error.message === 'does not fit', String(error));
    }
    equal(told, ['iterable', 'stream']);
  }
});

test('what the source throws is thrown, and what is none is refused', async () => {
  const failure = new Error('the disk is gone');
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield full.subarray(0, 20);
    throw failure;
  }
  is(await read(failing()).catch((error: unknown) => error), failure);
  const stream = new ReadableStream<Uint8Array>({ pull: (controller) => controller.error(failure) });
  is(await read(stream).catch((error: unknown) => error), failure);
  async function* texts(): AsyncGenerator<Uint8Array> {
    yield 'text' as unknown as Uint8Array;
  }
  for (const source of [texts(), {} as Blob, undefined, null, 'chat.safetensors', new ArrayBuffer(8)] as ByteSource[]) {
    const error = await read(source).catch((thrown: unknown) => thrown);
    ok(error instanceof TypeError && /"source" expected/.test(error.message), String(error));
  }
});

test('what could not be read is not written', async () => {
  const layers = (await read(small)).layers;
  const refusedToWrite = async (head: unknown, layer: object, kind: typeof RangeError | typeof TypeError, reason: RegExp): Promise<void> => {
    const error = await write(head as SnapshotHead, [{ ...layers[0], ...layer }]).then(() => undefined, (thrown: unknown) => thrown as Error);
    ok(error instanceof kind && reason.test(error.message), `${String(reason)}: ${String(error)}`);
  };
  await refusedToWrite({ ...smallHead, version: 2 }, {}, RangeError, /"head": the head.version expected 1, got 2/);
  await refusedToWrite({ ...smallHead, groups: [{ tokens: NaN }] }, {}, RangeError, /"head": the head.groups\[0\].tokens holds what is not a non-negative integer/);
  await refusedToWrite({ ...smallHead, groups: [] }, {}, RangeError, /"head": layers\[0\].group expected one of 0 groups/);
  await refusedToWrite(smallHead, { key: new Uint8Array(23) }, RangeError, /"layers.0.key" expected 24 elements for \[3, 1, 8\], got 23/);
  await refusedToWrite(smallHead, { key: new Int8Array(24) }, TypeError, /"layers.0.key" expected a Uint8Array \(e4m3fn\), got Int8Array/);
  await refusedToWrite(smallHead, { keyScale: undefined }, TypeError, /"layers.0.key_scale" expected a Float32Array \(f32\), got undefined/);
  await refusedToWrite(smallHead, { valueScale: new Float32Array(3) }, TypeError, /"valueScale" expected to be absent, as the head says, got Float32Array/);
});
