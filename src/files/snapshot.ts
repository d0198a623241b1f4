/**
 * A saved cache: a .safetensors file that is written and read as a stream, a layer at a time.
 *
 * ```
 * header                     its metadata "fp8_kv_snapshot" is the head, JSON: see snapshot-head.ts
 * layers.N.key               E4M3FN, E5M2, I8, F16 or F32   (token, kvHead, dim): rows of the layer's group
 * layers.N.value             the same
 * layers.N.key_scale         F32  (token, kvHead) or (token, kvHead, group): where scales are computed
 * layers.N.value_scale       the same
 * layers.N.k_scale           F32  (1), (kvHead) or (kvHead, dim): where scales are given
 * layers.N.v_scale           the same
 * layers.N.residual.key      F16 or F32  (token, kvHead, dim): rows of the residual's group
 * layers.N.residual.value    the same
 * checksums                  U8   (layer + 1, 32): of each layer's bytes, and last of all bytes before the first layer: see digest.ts
 * ```
 *
 * Tensors lie in this order, layer by layer. Checksums come last, so that nothing need be known before it is written; with
 * them, any flipped bit is found.
 */
import type { CodeArray } from '../backend.js';
import { Checksum, DIGEST_BYTES } from '../digest.js';
import { FormatError } from '../errors.js';
import { bytesOf, describe } from '../formats.js';
import { codeArrays } from '../tensors.js';
import { ByteStream, type ByteSource } from './byte-stream.js';
import { LENGTH_BYTES, MAX_SAFETENSORS_HEADER_BYTES, readHeader, readHeaderLength, serializeHeader, type Entry, type Header } from './safetensors-header.js';
import { readHead } from './snapshot-head-reader.js';
import { layerTensors, type SnapshotHead, type SnapshotPart, type SnapshotTensor } from './snapshot-head.js';
import { byteCount, quote, showShape, type SafetensorsDtype } from './tensor.js';

const HEAD = 'fp8_kv_snapshot';
const CHECKSUMS = 'checksums';
/** The largest piece that is written at once. */
const CHUNK_BYTES = 2 ** 20;

/** What a layer holds. Which of it is there, and in which shapes, follows from the head: see {@link layerTensors}. */
export interface SnapshotLayerTensors {
  /** [tokens, kvHeads, headDim] */
  readonly key: CodeArray;
  /** The same. */
  readonly value: CodeArray;
  /** Computed scales: [tokens, kvHeads] with granularity token-head, [tokens, kvHeads, groups] with group. */
  readonly keyScale?: Float32Array;
  readonly valueScale?: Float32Array;
  /** Given scales: [1], [kvHeads] or [kvHeads, headDim]. */
  readonly kScale?: Float32Array;
  readonly vScale?: Float32Array;
  /** `[tokens of the residual's group, kvHeads, headDim]`: f16 bits or f32 */
  readonly residualKey?: Uint16Array | Float32Array;
  readonly residualValue?: Uint16Array | Float32Array;
}

/** All tensors of a file with this head, in order. */
function* fileTensors(head: SnapshotHead): Generator<readonly [string, { readonly dtype: SafetensorsDtype; readonly shape: readonly number[] }]> {
  for (const index of head.layers.keys()) for (const tensor of layerTensors(head, index)) yield [tensor.name, tensor];
  yield [CHECKSUMS, { dtype: 'U8', shape: [head.layers.length + 1, DIGEST_BYTES] }];
}

/** Views of at most {@link CHUNK_BYTES} each. */
function* chunksOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES);
}

/** The head's text. The version comes first, so that whoever reads another one says so, and not that a field is unknown. */
function serializeHead({ version, ...head }: SnapshotHead): string {
  return JSON.stringify({ version, ...head });
}

function serializeFileHeader(head: SnapshotHead, text: string): Uint8Array {
  const header = serializeHeader(fileTensors(head), new Map([[HEAD, text]]));
  const length = header.length - LENGTH_BYTES;
  if (length > MAX_SAFETENSORS_HEADER_BYTES) throw new RangeError(`"head" expected a header of at most ${MAX_SAFETENSORS_HEADER_BYTES} bytes, got ${length}`);
  return header;
}

/** The bytes of a layer's tensors, in order, in place. */
function layerBytes(expected: readonly SnapshotTensor[], tensors: SnapshotLayerTensors): Uint8Array[] {
  const wanted = new Set<string>(expected.map(({ part }) => part));
  for (const [part, array] of Object.entries(tensors)) {
    if (array !== undefined && !wanted.has(part)) throw new TypeError(`"${part}" expected to be absent, as the head says, got ${describe(array)}`);
  }
  return expected.map(({ part, name, format, shape }) => {
    const array = tensors[part];
    const kind = codeArrays[format];
    if (!(array instanceof kind)) throw new TypeError(`"${name}" expected a ${kind.name} (${format}), got ${describe(array)}`);
    const length = shape.reduce((a, b) => a * b, 1);
    if (array.length !== length) throw new RangeError(`"${name}" expected ${length} elements for ${showShape(shape)}, got ${array.length}`);
    return bytesOf(array);
  });
}

/**
 * Writes a snapshot, in chunks of at most 1 MiB. A layer is asked for when those before it are written.
 * @param layer gives what a layer holds; the chunks are views onto it, so it must stay as it is
 * @throws RangeError for a head that does not hold together, or a tensor of another length; TypeError for one of another kind
 */
export async function* writeSnapshot(head: SnapshotHead, layer: (index: number) => SnapshotLayerTensors | Promise<SnapshotLayerTensors>): AsyncGenerator<Uint8Array, void> {
  const text = serializeHead(head);
  // From here on it is a copy that counts: the caller's may change between two chunks.
  const checked = readHead(text, (reason) => new RangeError(`"head": ${reason}`));
  const { layers } = checked;
  const header = serializeFileHeader(checked, text);
  const checksums = new Uint8Array((layers.length + 1) * DIGEST_BYTES);
  const checksum = new Checksum();
  await checksum.update(header);
  checksums.set(await checksum.take(), layers.length * DIGEST_BYTES);
  yield* chunksOf(header);
  for (const index of layers.keys()) {
    for (const bytes of layerBytes(layerTensors(checked, index), await layer(index))) {
      for (const chunk of chunksOf(bytes)) {
        await checksum.update(chunk);
        yield chunk;
      }
    }
    checksums.set(await checksum.take(), index * DIGEST_BYTES);
  }
  yield* chunksOf(checksums);
}

/** Who takes in what is read. Where one of these throws, reading ends with that. */
export interface SnapshotSink {
  /** The head, which holds together, before anything else is read: the place to refuse what does not fit. */
  head(head: SnapshotHead): void | Promise<void>;
  /** Each layer in ascending order, in arrays of its own. Nothing says yet that its bytes are right: their checksums come last. */
  layer(index: number, tensors: SnapshotLayerTensors): void | Promise<void>;
}

/**
 * Reads a snapshot, a layer at a time. Checks, in this order: the header, that it says what the head implies, and behind the
 * layers their checksums, the header's, and that the file ends there. **Only when this has returned is what `sink` was given
 * known to be right**: it must be kept apart, or be undone, until then.
 * @param source is cancelled where reading ends early
 * @param file what to call the file in errors
 * @throws FormatError with the byte at which the file breaks the format; whatever `source` and `sink` throw
 */
export async function readSnapshot(source: ByteSource, file: string, sink: SnapshotSink): Promise<void> {
  const stream = new ByteStream(source, file);
  try {
    await readLayers(stream, file, sink);
  } catch (error) {
    // What the source says of being cancelled is not what went wrong.
    await stream.close().catch(() => undefined);
    throw error;
  }
}

async function readLayers(stream: ByteStream, file: string, sink: SnapshotSink): Promise<void> {
  const checksum = new Checksum();
  const head = await readChecked(stream, file, checksum);
  const ofHeader = await checksum.take();
  const found: FoundChecksum[] = [];
  await sink.head(head);
  for (const index of head.layers.keys()) {
    const at = stream.position;
    const tensors: { [part in SnapshotPart]?: CodeArray } = {};
    for (const { part, format, dtype, shape } of layerTensors(head, index)) {
      const bytes = await stream.take(byteCount(dtype, shape), checksum);
      tensors[part] = new codeArrays[format](bytes.buffer);
    }
    found.push({ what: `layer ${index}`, at, checksum: await checksum.take() });
    await sink.layer(index, tensors as SnapshotLayerTensors);
  }
  found.push({ what: 'the header', at: 0, checksum: ofHeader });
  checkChecksums(found, await stream.take(found.length * DIGEST_BYTES), file);
  await stream.expectEnd();
}

/** The checksum of bytes that were read, and where they begin. */
interface FoundChecksum {
  readonly what: string;
  readonly at: number;
  readonly checksum: Uint8Array;
}

function checkChecksums(found: readonly FoundChecksum[], expected: Uint8Array, file: string): void {
  for (const [index, { what, at, checksum }] of found.entries()) {
    if (!checksum.every((byte, i) => byte === expected[index * DIGEST_BYTES + i])) throw new FormatError(file, at, `${what} has another checksum than the file says at its end`);
  }
}

/** The head, in a header that says what it implies. */
async function readChecked(stream: ByteStream, file: string, checksum: Checksum): Promise<SnapshotHead> {
  const start = await stream.take(LENGTH_BYTES, checksum);
  const text = await stream.take(readHeaderLength(start, file), checksum);
  const bytes = new Uint8Array(LENGTH_BYTES + text.length);
  bytes.set(start);
  bytes.set(text, LENGTH_BYTES);
  const header = readHeader(bytes, file);
  const json = header.metadata.get(HEAD);
  if (json === undefined) throw new FormatError(file, LENGTH_BYTES, `metadata "${HEAD}" expected a head, got none`);
  const head = readHead(json, (reason) => new FormatError(file, LENGTH_BYTES, `metadata "${HEAD}": ${reason}`));
  checkEntries(header, head, file);
  return head;
}

const showEntry = ({ name, dtype, shape, begin, end }: Omit<Entry, 'at'>): string => `${quote(name)}, ${dtype} ${showShape(shape)} in ${begin}…${end}`;

/** @throws FormatError unless the header has the head's tensors, each at its place, and no others */
function checkEntries({ entries, dataStart }: Header, head: SnapshotHead, file: string): void {
  if (dataStart % 8 !== 0) throw new FormatError(file, 0, `the header expected to end at a multiple of 8 bytes, got ${dataStart}`);
  let index = 0;
  let begin = 0;
  for (const [name, { dtype, shape }] of fileTensors(head)) {
    const expected = showEntry({ name, dtype, shape, begin, end: begin + byteCount(dtype, shape) });
    const entry = entries.at(index++);
    if (entry === undefined) throw new FormatError(file, dataStart, `expected tensor ${expected}, got no more`);
    if (showEntry(entry) !== expected) throw new FormatError(file, entry.at, `expected tensor ${expected}, got ${showEntry(entry)}`);
    begin = entry.end;
  }
  if (index < entries.length) throw new FormatError(file, entries[index].at, `expected no tensor after ${quote(CHECKSUMS)}, got ${quote(entries[index].name)}`);
}
