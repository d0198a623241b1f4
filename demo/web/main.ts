/** The page: what it asks of its worker, and where what comes back goes. */
import { count } from '../../src/evaluate/report/text.js';
import { variants } from './caches.js';
import { byId, element } from './dom.js';
import { openExplorer } from './explorer.js';
import { bytes, Figures } from './figures.js';
import { watchFolders } from './folder.js';
import { HeatMap } from './heat-map.js';
import type { Ended, Folder, Loaded, Preference, Progress, ToPage, ToWorker } from './messages.js';
import { Texts } from './texts.js';

const worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' });
const ask = (message: ToWorker): void => worker.postMessage(message);

const form = byId<HTMLFormElement>('setup');
const run = byId<HTMLButtonElement>('run');
const cancel = byId<HTMLButtonElement>('cancel');
const loadOrator = byId<HTMLButtonElement>('load-orator');
const folderInput = byId<HTMLInputElement>('folder');
const caches = [byId<HTMLSelectElement>('cache-a'), byId<HTMLSelectElement>('cache-b')] as const;
const progress = byId<HTMLProgressElement>('progress');
const status = byId('status');
const problem = byId('problem');

const texts = new Texts();
const figures = new Figures();
const map = new HeatMap();
openExplorer();

/** What the worker does now. */
let job: 'loading' | 'running' | undefined;
let model: Loaded | undefined;

function showJob(now: typeof job): void {
  job = now;
  run.disabled = job !== undefined || model === undefined;
  cancel.disabled = job === undefined;
  loadOrator.disabled = job !== undefined;
  folderInput.disabled = job !== undefined;
  form.ariaBusy = String(job !== undefined);
  if (job === undefined) {
    progress.hidden = true;
    byId('amount').textContent = '';
  }
}

function begin(next: 'loading' | 'running', said: string, message: ToWorker): void {
  problem.hidden = true;
  status.textContent = said;
  showJob(next);
  ask(message);
}

const load = (folder?: Folder): void => {
  if (job === undefined) begin('loading', `Loading ${folder?.name ?? 'orator'}`, { type: 'load', folder });
};

function complain(error: unknown): void {
  problem.textContent = error instanceof Error ? error.message : String(error);
  problem.hidden = false;
}

function showProgress({ task, done, total }: Progress): void {
  progress.hidden = false;
  // Without a value it moves to and fro.
  if (total > 0) {
    progress.max = total;
    progress.value = done;
  } else progress.removeAttribute('value');
  const amount = task === 'reading' ? bytes : count;
  byId('amount').textContent = `${task === 'reading' ? '' : 'calibrating scales: '}${amount(done)}${total > 0 ? ` of ${amount(total)}` : ''}${task === 'reading' ? '' : ' tokens'}`;
}

function showModel(loaded: Loaded): void {
  model = loaded;
  const { layers, kvHeads, headDim, context } = loaded.config;
  byId('model').replaceChildren(element('b', {}, loaded.name), `: ${count(layers)} layers, ${count(kvHeads)} KV heads of ${count(headDim)}, context ${count(context)}; ${bytes(loaded.bytes)}, ready after ${(loaded.milliseconds / 1000).toFixed(2)} s`);
}

const endings: { readonly [job in 'loading' | 'running']: () => string } = {
  loading: () => `${model!.name} is loaded.`,
  running: () => `Done: ${texts.outcome}.`,
};

function showEnd(end: Ended): void {
  const ended = job!;
  if (ended === 'running') texts.end();
  status.textContent = end.type === 'done' ? endings[ended]() : end.type === 'cancelled' ? 'Cancelled.' : '';
  if (end.type === 'failed') complain(end.message);
  showJob(undefined);
}

worker.addEventListener('message', ({ data }: MessageEvent<ToPage>) => {
  switch (data.type) {
    case 'progress':
      return showProgress(data);
    case 'loaded':
      return showModel(data);
    case 'backend':
      byId('backend-used').replaceChildren(element('b', {}, data.backend === 'webgpu' ? 'WebGPU' : 'WebAssembly'), `: ${data.reason}. The model’s matrix products run in WebAssembly in any case.`);
      return undefined;
    case 'started':
      progress.hidden = true;
      byId('amount').textContent = '';
      for (const [i, side] of ['a', 'b'].entries()) byId(`name-${side}`).textContent = caches[i].value;
      texts.begin(data);
      figures.begin(data);
      return map.begin(data);
    case 'stored':
      figures.add(data);
      return map.add(data);
    case 'said':
      texts.add(data);
      return map.name(data.pieces[0] ?? '');
    default:
      return showEnd(data);
  }
});
worker.addEventListener('error', ({ message }) => complain(`the worker has stopped: ${message}`));

for (const [i, select] of caches.entries()) {
  for (const { name } of variants) select.append(element('option', {}, name));
  select.value = ['f32', 'e4m3fn, token-head'][i];
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  if (job !== undefined || model === undefined) return;
  begin('running', 'Running', {
    type: 'run',
    preference: byId<HTMLSelectElement>('backend').value as Preference,
    caches: [caches[0].value, caches[1].value],
    prompt: byId<HTMLTextAreaElement>('prompt').value,
    tokens: byId<HTMLInputElement>('tokens').valueAsNumber,
  });
});
cancel.addEventListener('click', () => ask({ type: 'cancel' }));
loadOrator.addEventListener('click', () => load());
watchFolders(load, complain);
load();
