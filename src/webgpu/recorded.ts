/**
 * Calls that are recorded before they run: see src/recorder.ts. Pages lie on the GPU, and keys and values may, so a call waits until
 * they have been read back and are on file. What is recorded into an encoder of the caller's is left out: when it will be
 * submitted, and on which contents, nobody knows.
 */
import type { AppendCall, NhdTensors } from '../backend.js';
import { floatDtypes } from '../formats.js';
import { recorderAskedFor } from '../recorder.js';
import { newTensors, unpackPages } from '../tensors.js';
import type { WebgpuAppendCall, WebgpuBackend } from './backend.js';
import { usage } from './constants.js';
import type { Gpu } from './gpu.js';
import type { Region } from './memory.js';
import { WebgpuPages } from './pages.js';
import { checkDtype, isGpuTensor, regionOf, tensorBytes } from './tensor.js';

/** Bytes on the GPU, and where they go. */
interface Input {
  readonly region: Region;
  readonly name: 'key' | 'value';
}

/** The call with room in place of what lies on the GPU. */
function onHost(call: WebgpuAppendCall, limits: GPUSupportedLimits): { call: AppendCall; inputs: Input[] } {
  const { kvHeads, headDim } = call.pages.layout;
  const inputs: Input[] = [];
  const read = (name: 'key' | 'value'): AppendCall['key'] => {
    const tensor = call[name];
    if (!isGpuTensor(tensor)) return tensor;
    const dtype = checkDtype(call.dtype);
    const rows = call.slotMapping.length * kvHeads;
    const region = regionOf(tensor, tensorBytes(rows, headDim, dtype), name, limits);
    if ((region.buffer.usage & usage.copySrc) === 0) throw new Error(`"${name}" lies in a buffer without the usage COPY_SRC`);
    inputs.push({ region, name });
    return floatDtypes[dtype].bytes === 4 ? new Float32Array(rows * headDim) : new Uint16Array(rows * headDim);
  };
  return { call: { ...call, key: read('key'), value: read('value') }, inputs };
}

/** Reads pages, one after the other, and inputs into the tensors of their names. */
function readBack(gpu: Gpu, { region, layout }: WebgpuPages, numbers: readonly number[], inputs: readonly { region: Region; data: Uint8Array }[]): Promise<NhdTensors> {
  const made = newTensors(layout, numbers.length);
  const pageBytes = numbers.length * layout.bytes;
  const size = inputs.reduce((sum, { data }) => sum + data.length, pageBytes);
  const record = (encoder: GPUCommandEncoder, results: GPUBuffer): void => {
    for (const [i, page] of numbers.entries()) encoder.copyBufferToBuffer(region.buffer, page * layout.bytes, results, i * layout.bytes, layout.bytes);
    let at = pageBytes;
    for (const { region: from, data } of inputs) {
      encoder.copyBufferToBuffer(from.buffer, from.offset, results, at, data.length);
      at += data.length;
    }
  };
  return gpu.readBack('recording', size, record, (bytes) => {
    unpackPages(layout, made, new Uint8Array(bytes, 0, pageBytes));
    let at = pageBytes;
    for (const { data } of inputs) {
      data.set(new Uint8Array(bytes, at, data.length));
      at += data.length;
    }
    return made.tensors;
  });
}

/** The backend, which writes down its calls where that is asked for: in methods of its own then, so that it costs nothing elsewhere. */
export function recorded(backend: WebgpuBackend): WebgpuBackend {
  const recorder = recorderAskedFor();
  if (recorder === undefined) return backend;
  const { append, attend } = backend;
  const isOwn = (pages: unknown): pages is WebgpuPages => pages instanceof WebgpuPages && pages.backend === backend;
  const inTurn = (recording: ReturnType<typeof recorder.append>, pages: WebgpuPages, inputs: readonly Input[]): void => {
    if (recording === undefined) return;
    const places = inputs.map(({ region, name }) => ({ region, data: recording.tensors.get(name)!.data }));
    backend.inTurn(async (gpu) => {
      try {
        const tensors = await readBack(gpu, pages, recording.pages, places);
        recording.write(() => tensors);
      } catch (error) {
        recorder.failed(new Error(`its pages could not be read back: ${(error as Error).message || String(error)}`));
      }
    });
  };
  backend.append = (call) => {
    const pages = call?.pages;
    if (isOwn(pages)) {
      const host = recorder.attempt(() => onHost(call, backend.device.limits));
      if (host) inTurn(recorder.append(host.call, 'webgpu'), pages, host.inputs);
    }
    return append.call(backend, call);
  };
  backend.attend = ((call) => {
    if (isOwn(call?.pages)) inTurn(recorder.attend(call, 'webgpu'), call.pages, []);
    return attend.call(backend, call);
  }) as typeof attend;
  return backend;
}
