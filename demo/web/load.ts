/** A model's files, read with progress, and the model that they make. */
import type { ModelFiles } from '../../src/model/files.js';
import { LlamaRunner } from '../../src/model/llama.js';
import { tokenizerOf, type Tokenizer } from '../../src/model/tokenizer.js';
import { weightsOf } from '../../src/model/weights.js';

/** A file that is not read yet. */
export interface Unread {
  readonly name: string;
  /** Its bytes, and how many there will be: 0 where nobody knows. */
  open(signal: AbortSignal): Promise<{ readonly stream: ReadableStream<Uint8Array>; readonly size: number }>;
}

export interface Model {
  readonly name: string;
  readonly runner: LlamaRunner;
  readonly tokenizer: Tokenizer;
  /** A text that came with it. */
  readonly text: string | undefined;
  readonly bytes: number;
}

export interface LoadOptions {
  readonly signal: AbortSignal;
  readonly onBytes: (done: number, total: number) => void;
  /** Before each of the longer parts that do not wait for anything. What it throws ends the loading. */
  readonly breathe: () => Promise<void>;
}

const TEXT = 'eval.txt';
const WEIGHTS = 'model.safetensors';
const wanted = ['config.json', 'tokenizer.json', 'tokenizer_config.json', `${WEIGHTS}.index.json`, TEXT];

/** Of a folder's files those that a model is read from: of weights in one file and in several, the one. */
export function partsOf<T extends { readonly name: string }>(folder: string, files: readonly T[]): T[] {
  const isThere = (name: string): boolean => files.some((file) => file.name === name);
  for (const name of wanted.slice(0, 2)) {
    if (!isThere(name)) throw new Error(`${folder}/${name} is missing: a model is a folder with config.json, tokenizer.json and ${WEIGHTS}`);
  }
  const isWeights = ({ name }: T): boolean => (isThere(WEIGHTS) ? name === WEIGHTS : name.endsWith('.safetensors'));
  if (!files.some(isWeights)) throw new Error(`${folder}/${WEIGHTS} is missing: a model is a folder with config.json, tokenizer.json and ${WEIGHTS}`);
  return files.filter((file) => wanted.includes(file.name) || isWeights(file));
}

export const fileOf = (file: File): Unread => ({ name: file.name, open: async () => ({ stream: file.stream(), size: file.size }) });

export const download = (name: string, url: string): Unread => ({
  name,
  async open(signal) {
    const response = await fetch(url, { signal });
    if (!response.ok || response.body === null) throw new Error(`${name}: the server answered ${response.status}`);
    return { stream: response.body, size: Number(response.headers.get('content-length') ?? 0) };
  },
});

/** A stream's bytes. */
async function readAll(stream: ReadableStream<Uint8Array>, size: number, signal: AbortSignal, onBytes: (count: number) => void): Promise<Uint8Array> {
  const reader = stream.getReader();
  let bytes = new Uint8Array(size);
  let length = 0;
  for (;;) {
    if (signal.aborted) await reader.cancel();
    signal.throwIfAborted();
    const { done, value } = await reader.read();
    if (done) return bytes.subarray(0, length);
    if (length + value.length > bytes.length) {
      const larger = new Uint8Array(Math.max(2 * bytes.length, length + value.length));
      larger.set(bytes);
      bytes = larger;
    }
    bytes.set(value, length);
    length += value.length;
    onBytes(value.length);
  }
}

/** @throws Error naming the file that is missing, malformed or not supported; the signal's reason */
export async function loadModel(name: string, parts: readonly Unread[], { signal, onBytes, breathe }: LoadOptions): Promise<Model> {
  const opened = await Promise.all(parts.map((part) => part.open(signal)));
  const total = opened.every(({ size }) => size > 0) ? opened.reduce((sum, { size }) => sum + size, 0) : 0;
  let done = 0;
  const contents = new Map<string, Uint8Array>();
  for (const [i, { stream, size }] of opened.entries()) {
    contents.set(parts[i].name, await readAll(stream, size, signal, (count) => onBytes((done += count), total)));
  }
  const files: ModelFiles = { read: (file) => contents.get(file), path: (file) => `${name}/${file}` };
  const tokenizer = await tokenizerOf(files);
  await breathe();
  const weights = weightsOf(files);
  await breathe();
  const text = contents.get(TEXT);
  return { name, runner: new LlamaRunner(weights), tokenizer, text: text && new TextDecoder().decode(text), bytes: done };
}
