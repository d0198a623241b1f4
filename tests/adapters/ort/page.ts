/** What runs in the page: a session of onnxruntime-web on a GPU that is shared, and what becomes of its keys and values. */
import { pageLayout, wasmBackend, webgpuBackend } from '../../../src/index.js';
import { appendPresent, readPast, sharedDeviceDescriptor } from '../../../src/ort/index.js';
import { seedOf, tableOf, type DecoderShape } from '../decoder.js';

/** What goes to the host on its way. */
let toHost = 0;
const { mapAsync } = GPUBuffer.prototype;
GPUBuffer.prototype.mapAsync = function (...args) {
  toHost++;
  return mapAsync.apply(this, args);
};
const { copyBufferToBuffer } = GPUCommandEncoder.prototype as { copyBufferToBuffer: (...args: any[]) => void };
GPUCommandEncoder.prototype.copyBufferToBuffer = function (...args: any[]) {
  const [, target] = args.filter((each) => each instanceof GPUBuffer) as GPUBuffer[];
  if (target.usage & GPUBufferUsage.MAP_READ) toHost++;
  copyBufferToBuffer.apply(this, args);
};

const names = ['past_key_values.0.key', 'past_key_values.0.value', 'present.0.key', 'present.0.value'] as const;
const [pastKey, pastValue, presentKey, presentValue] = names;

/** Of the tokens, a row of each head after the other. */
function rowsOf(shape: DecoderShape, side: 'key' | 'value', tokens: readonly number[]): Float32Array {
  const table = tableOf(shape, seedOf(0, side));
  const width = shape.kvHeads * shape.headDim;
  return Float32Array.from(tokens.flatMap((id) => [...table.subarray(id * width, (id + 1) * width)]));
}

const asText = (array: ArrayBufferView): string => [...new Uint8Array(array.buffer, array.byteOffset, array.byteLength)].join();

/**
 * Two rows of 5 and 3 tokens, padded on the left, and three steps of one token each: what the session leaves goes into pages
 * token by token, and its past comes from there.
 */
async function chat(shape: DecoderShape) {
  // Named at run time: it comes from the folder that the test has installed.
  const runtime = '/ort.webgpu.bundle.min.mjs';
  const ort = await import(runtime);
  ort.env.wasm.numThreads = 1;
  const { kvHeads, headDim } = shape;
  const adapter = (await navigator.gpu.requestAdapter())!;
  const device = await adapter.requestDevice(sharedDeviceDescriptor(adapter));
  const problems: string[] = [];
  device.addEventListener('uncapturederror', ({ error }) => problems.push(error.message));
  const preferredOutputLocation = { [presentKey]: 'gpu-buffer', [presentValue]: 'gpu-buffer' };
  const session = await ort.InferenceSession.create('/model.onnx', { executionProviders: [{ name: 'webgpu', device }], preferredOutputLocation });
  const backend = await webgpuBackend({ device });
  const layout = pageLayout({ kvHeads, headDim, blockSize: 4, k: { dtype: 'e4m3fn' }, v: { dtype: 'int8' } });
  const pages = backend.createPages(layout, 4);
  const [first, padding] = [[5, 6, 7, 8, 9], 2];
  const rows = [first, [0, 0, 11, 12, 13]];
  /** Row 0 has pages 2 and 0, row 1 pages 3 and 1. */
  const slotOf = (row: number, token: number): number => (token < 4 ? 2 + row : row) * 4 + (token % 4);
  const slots = (from: number, to: number): Int32Array =>
    Int32Array.from([0, 1].flatMap((row) => Array.from({ length: to - from }, (_, i) => (row === 1 && from + i < padding ? -1 : slotOf(row, from + i - row * padding)))));
  let length = 0;
  let moved = 0;
  const sizes: number[][] = [];
  const logits: string[] = [];
  for (const tokens of [rows, [[14], [15]], [[16], [17]], [[18], [19]]]) {
    const before = toHost;
    const past = await readPast<any>(backend, { Tensor: ort.Tensor, pages, slotMapping: slots(0, length), batch: 2 });
    moved += toHost - before;
    const inputs = new ort.Tensor('int64', BigInt64Array.from(tokens.flat(), BigInt), [2, tokens[0].length]);
    const outputs = await session.run({ input_ids: inputs, [pastKey]: past.key, [pastValue]: past.value });
    const [key, value] = [outputs[presentKey], outputs[presentValue]];
    const between = toHost;
    length += tokens[0].length;
    await appendPresent(backend, { pages, key, value, slotMapping: slots(length - tokens[0].length, length) });
    moved += toHost - between;
    sizes.push([key.gpuBuffer.size, key.dims.reduce((a: number, b: number) => a * b, 4)]);
    logits.push(asText(outputs.logits.data));
    for (const tensor of [past.key, past.value, key, value]) tensor.dispose();
    if (tokens !== rows) rows.forEach((row, i) => row.push(tokens[i][0]));
  }

  const wasm = wasmBackend();
  const theirs = wasm.createPages(layout, 4);
  for (const [row, skipped] of [[0, 0], [1, padding]] as const) {
    const tokens = rows[row].slice(skipped);
    wasm.append({ pages: theirs, key: rowsOf(shape, 'key', tokens), value: rowsOf(shape, 'value', tokens), slotMapping: Int32Array.from(tokens, (_, token) => slotOf(row, token)) });
  }
  const [ours, right] = [await pages.export(), theirs.export()];
  const same = (['keyCache', 'valueCache', 'keyScale', 'valueScale'] as const).map((name) => asText(ours[name]!) === asText(right[name]!));
  await session.release();
  return { moved, counted: toHost > 0, same, sizes, differing: new Set(logits).size, problems, ours: backend.device === device };
}

Object.assign(globalThis, { chat });
