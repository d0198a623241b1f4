/** Everything that takes time: loading, calibrating, running the model. */
import { openBackend, type Backend, type BackendChoice } from '../../src/index.js';
import type { Storage } from '../../src/model/cached-model.js';
import config from '../models/orator/config.json?url';
import text from '../models/orator/eval.txt?url';
import weights from '../models/orator/model.safetensors?url';
import tokenizer from '../models/orator/tokenizer.json?url';
import { storages } from './caches.js';
import { compare, type Pair } from './compare.js';
import { download, fileOf, loadModel, partsOf, type Model } from './load.js';
import type { Folder, Preference, Progress, RunRequest, ToPage, ToWorker } from './messages.js';

/** The worker's own side, which the types of pages do not know. */
const port = globalThis as unknown as { postMessage(message: ToPage): void; addEventListener(type: 'message', listener: (event: { readonly data: ToWorker }) => void): void };
const tell = (message: ToPage): void => port.postMessage(message);

const ORATOR = 'orator';
const orator = [
  download('config.json', config),
  download('tokenizer.json', tokenizer),
  download('eval.txt', text),
  download('model.safetensors', weights),
];

/** Milliseconds between two reports of progress. */
const REPORT_EVERY = 50;

/** Lets a message come in. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.addEventListener('message', () => {
      port1.close();
      resolve();
    });
    port1.start();
    port2.postMessage(0);
  });
}

/** Lets a message come in; throws where that was to cancel. */
async function breathe(signal: AbortSignal): Promise<void> {
  await turn();
  signal.throwIfAborted();
}

/** What comes first: the result, or the end of waiting for it. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    work.then(resolve, reject);
  });
}

let model: Model | undefined;
/** Of the model: calibrations take a while. */
const known = new Map<string, Storage>();

async function load(folder: Folder | undefined, signal: AbortSignal): Promise<void> {
  const began = performance.now();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let read: Pick<Progress, 'done' | 'total'> = { done: 0, total: 0 };
  const onBytes = (done: number, total: number): void => {
    read = { done, total };
    timer ??= setTimeout(() => {
      timer = undefined;
      tell({ type: 'progress', task: 'reading', ...read });
    }, REPORT_EVERY);
  };
  const parts = folder === undefined ? orator : partsOf(folder.name, folder.files).map(fileOf);
  try {
    model = await loadModel(folder?.name ?? ORATOR, parts, { signal, onBytes, breathe: () => breathe(signal) });
  } finally {
    clearTimeout(timer);
  }
  known.clear();
  tell({ type: 'loaded', name: model.name, config: model.runner.config, bytes: model.bytes, milliseconds: performance.now() - began });
}

type Opened = { readonly backend: Backend; readonly choice: BackendChoice };
const backends = new Map<Preference, Promise<Opened>>();

/** The backend for a preference: opened once, as long as it works. */
function backendFor(preference: Preference): Promise<Opened> {
  const open = async (): Promise<Opened> => {
    let choice: BackendChoice | undefined;
    const backend = await openBackend({ prefer: preference === 'auto' ? undefined : preference, onChoice: (made) => (choice = made) });
    return { backend, choice: choice! };
  };
  const opened = backends.get(preference) ?? open();
  backends.set(preference, opened);
  return opened;
}

/** A calibration text for models that bring none. */
let english: string | undefined;

async function storagesFor(names: Pair<string>, { runner, tokenizer, text: own }: Model, signal: AbortSignal): Promise<Pair<Storage>> {
  const missing = names.filter((name) => !known.has(name));
  english ??= own === undefined ? await (await fetch(text, { signal })).text() : undefined;
  const onCalibrated = async (done: number, total: number): Promise<void> => {
    tell({ type: 'progress', task: 'calibrating', done, total });
    await breathe(signal);
  };
  const found = await storages(missing, { runner, tokenizer, text: own ?? english!, onCalibrated });
  for (const [i, name] of missing.entries()) known.set(name, found[i]);
  return [known.get(names[0])!, known.get(names[1])!];
}

async function run({ preference, caches, prompt, tokens }: RunRequest, signal: AbortSignal): Promise<void> {
  if (model === undefined) throw new Error('no model is loaded');
  const { backend, choice } = await unlessAborted(backendFor(preference), signal);
  tell({ type: 'backend', ...choice });
  const pair = await storagesFor(caches, model, signal);
  try {
    await compare({ backend, runner: model.runner, tokenizer: model.tokenizer, storages: pair, prompt, tokens, breathe: () => breathe(signal) }, tell);
  } catch (error) {
    // A device that was lost stays so: the next run opens another.
    if (!signal.aborted) {
      backends.delete(preference);
      backend.dispose();
    }
    throw error;
  }
}

let job: AbortController | undefined;

/** Does one thing, and says how it ended. */
async function work(task: (signal: AbortSignal) => Promise<void>): Promise<void> {
  job = new AbortController();
  const { signal } = job;
  try {
    await task(signal);
    tell({ type: 'done' });
  } catch (error) {
    tell(signal.aborted ? { type: 'cancelled' } : { type: 'failed', message: error instanceof Error ? error.message : String(error) });
  }
}

port.addEventListener('message', ({ data }) => {
  if (data.type === 'cancel') job?.abort();
  else if (data.type === 'load') void work((signal) => load(data.folder, signal));
  else void work((signal) => run(data, signal));
});
