/** Every reader of what comes from outside, each with small valid files. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { decodePage, encodePage } from '../../src/cache/page-value.js';
import type { Command } from '../../src/cli/command.js';
import { decode } from '../../src/cli/decode.js';
import { encode } from '../../src/cli/encode.js';
import { readAppendCase, runAppendCase } from '../../src/files/append-case.js';
import { readAttendCase, runAttendCase } from '../../src/files/attend-case.js';
import { parseNpy, serializeNpy } from '../../src/files/npy.js';
import { parseNpz } from '../../src/files/npz.js';
import { parseSafetensors, serializeSafetensors } from '../../src/files/safetensors.js';
import { layerTensors, type SnapshotHead } from '../../src/files/snapshot-head.js';
import { readHead } from '../../src/files/snapshot-head-reader.js';
import { readSnapshot, writeSnapshot, type SnapshotLayerTensors } from '../../src/files/snapshot.js';
import { byteCount, type SafetensorsDtype, type Tensor } from '../../src/files/tensor.js';
import { FormatError, KvCache, loadSnapshot, onWarning, pageLayout, readScales, recipes, saveSnapshot, wasmBackend, type PageLayout } from '../../src/index.js';
import { checkCase, generateAppendCase, generateAttendCase, generateCodes } from '../../src/oracle/index.js';
import { codeArrays, newTensors } from '../../src/tensors.js';
import { checkpoint, f32, json, model, tensorFile } from '../checkpoint/fixtures.js';
import { archive, hello } from '../files/archive.js';
import type { Sample } from './mutate.js';
import type { Readers } from './reader.js';

const backend = wasmBackend();
onWarning(() => {});

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const join2 = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));

/** A .safetensors file whose header can be another: its length is written anew. */
function safetensors(bytes: Uint8Array): Sample {
  const end = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const wrap = (header: Uint8Array): Uint8Array => {
    const length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(header.length), true);
    return join2(length, header, bytes.subarray(end));
  };
  return { bytes, inner: bytes.slice(8, end), wrap };
}

/** The same of a .npy file of version 1. */
function npy(bytes: Uint8Array): Sample {
  const end = 10 + new DataView(bytes.buffer, bytes.byteOffset).getUint16(8, true);
  const wrap = (header: Uint8Array): Uint8Array => join2(bytes.subarray(0, 8), Uint8Array.of(header.length & 255, header.length >> 8), header, bytes.subarray(end));
  return { bytes, inner: bytes.slice(10, end), wrap };
}

/** A tensor of bytes that are values of an ordinary size in every format. */
function tensor(dtype: SafetensorsDtype, ...shape: number[]): Tensor {
  return { dtype, shape, data: Uint8Array.from({ length: byteCount(dtype, shape) }, (_, i) => 0x30 + (i % 13)) };
}
const i32 = (shape: number[], ...values: number[]): Tensor => ({ dtype: 'I32', shape, data: new Uint8Array(Int32Array.from(values).buffer) });

const someTensors = tensorFile({ a: tensor('F32', 2, 3), 'b.c': tensor('F8_E4M3', 5), empty: tensor('BF16', 0), scalar: tensor('I64') }, { format: 'pt' });
const codes = tensorFile({ a: tensor('F8_E4M3', 2, 3), b: tensor('F8_E5M2', 5), other: tensor('I32', 1) });
const someNpy = [serializeNpy('<f4', [2, 3], tensor('F32', 2, 3).data), serializeNpy('|u1', [5], tensor('U8', 5).data), serializeNpy('<f2', [], tensor('F16').data)];

const attendMetadata = { fp8_kv_case: 'attend/1', layout: 'NHD', causal: 'true', window_left: '-1', window_right: '-1', softcap: '0', softmax_scale: '0.25' };
const tables = { block_table: i32([2, 2], 3, 1, 0, -1), cu_seqlens_q: i32([3], 0, 1, 3), seqused_k: i32([2], 3, 2) };
const attendCases = [
  tensorFile({ q: tensor('F32', 3, 4, 8), k_cache: tensor('F8_E4M3', 4, 2, 2, 8), v_cache: tensor('F8_E4M3', 4, 2, 2, 8), k_scale: f32([1], 0.01), v_scale: tensor('F32', 4, 2, 2), ...tables }, attendMetadata),
  tensorFile(
    { q: tensor('F16', 3, 2, 16), k_cache: tensor('I8', 4, 2, 1, 16), v_cache: tensor('F16', 4, 2, 1, 16), k_scale: tensor('F32', 4, 2, 1, 2), sinks: f32([2], 0, 1), alibi_slopes: f32([2], 1, 2), 'expected.lse': tensor('F32', 3, 2), ...tables },
    { ...attendMetadata, k_granularity: 'group', group_size: '8', k_dtype: 'int8', window_left: '2', softcap: '30' },
  ),
];
const appendMetadata = { fp8_kv_case: 'append/1', layout: 'NHD', kv_cache_dtype: 'fp8_e4m3', granularity: 'token-head', recipe: 'amax', blocks: '2', block_size: '4' };
const appended = { key: tensor('F32', 3, 2, 8), value: tensor('F32', 3, 2, 8), slot_mapping: i32([3], 6, -1, 1) };
const appendCases = [
  tensorFile(appended, appendMetadata),
  tensorFile({ ...appended, k_cache: tensor('I8', 2, 4, 2, 8), v_cache: tensor('F8_E5M2', 2, 4, 2, 8), k_scale: tensor('F32', 2, 4, 2, 1), v_scale: f32([2], 0.1, 0.2), 'expected.k_cache': tensor('I8', 2, 4, 2, 8) },
    { fp8_kv_case: 'append/1', recipe: 'vllm-token-head', k_granularity: 'group', v_granularity: 'head', group_size: '8' }),
];

/** Cases may ask for pools of any size, which is not what is fuzzed. */
const isSmall = ({ bytes }: PageLayout, blocks: number): boolean => bytes * blocks <= 2 ** 20;

const small = { tokens: 3, kvHeads: 1, headDim: 8, blockSize: 2, seed: 1 };
const dumps = [await generateCodes(small), await generateCodes({ ...small, granularity: 'head' }), await generateCodes({ ...small, format: 'int8', granularity: 'group', groupSize: 8 }), await generateAppendCase(small), await generateAttendCase({ ...small, queryHeads: 2 })];

function readsSmall(bytes: Uint8Array): boolean {
  const kind = parseSafetensors(bytes, 'fuzz').metadata.get('fp8_kv_case');
  if (kind === 'codes/1') return true;
  const { layout, blocks } = kind === 'attend/1' ? readAttendCase(bytes, 'fuzz') : readAppendCase(bytes, 'fuzz');
  return isSmall(layout, blocks);
}

const amax = { ...recipes.amax };
const head: SnapshotHead = {
  version: 1,
  chain: { root: '5'.repeat(64), blockSize: 2 },
  layers: [
    { group: 0, kvHeads: 1, headDim: 8, k: { format: 'e4m3fn', granularity: 'token-head', recipe: amax }, v: { format: 'e5m2', granularity: 'tensor', givenScales: 1 } },
    { group: 1, kvHeads: 2, headDim: 8, window: 6, sinkTokens: 2, k: { format: 'int8', granularity: 'group', groupSize: 8, recipe: amax }, v: { format: 'f16', granularity: 'tensor' }, residual: { group: 2, tokens: 4, dtype: 'f16', rule: 'all at once' } },
  ],
  groups: [{ tokens: 4 }, { tokens: 2 }, { tokens: 1 }],
  sequences: [{ length: 3, due: false, hashes: ['a'.repeat(64)], held: [{ sinks: 0, floor: 0, end: 3, runs: [[1, 2], [0, 1]] }, { sinks: 0, floor: 0, end: 2, runs: [[0, 2]] }, { sinks: 0, floor: 2, end: 3, runs: [[0, 1]] }] }],
};

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return join2(...all);
}

const snapshot = await collect(writeSnapshot(head, (index) => Object.fromEntries(layerTensors(head, index).map(({ part, format, shape }) =>
  [part, new codeArrays[format](shape.reduce((a, b) => a * b, 1))])) as unknown as SnapshotLayerTensors));

const newCache = (): KvCache => new KvCache(backend, { layers: 2, queryHeads: 2, kvHeads: 1, headDim: 8, capacity: 16, blockSize: 2 });

async function savedCache(): Promise<Uint8Array> {
  const cache = newCache();
  const step = cache.begin([{ sequence: cache.createSequence(), tokens: 5 }]);
  for (let layer = 0; layer < 2; layer++) step.append(layer, new Float32Array(40).fill(0.5), new Float32Array(40).fill(2));
  step.commit();
  const bytes = await collect(saveSnapshot(cache));
  cache.dispose();
  return bytes;
}

const pageLayouts = [pageLayout({ kvHeads: 1, headDim: 8, blockSize: 3 }), pageLayout({ kvHeads: 1, headDim: 8, blockSize: 3, k: { dtype: 'f16' }, v: { dtype: 'f32' } })];
const key = '0123456789abcdef'.repeat(4);
const page = await encodePage(key, pageLayouts.map((layout) => newTensors(layout, 1).tensors));
const checked = (behind: Uint8Array): Uint8Array => join2(page.subarray(0, 8), createHash('sha256').update(behind).digest(), behind);

const scaleTensors = { 'model.layers.0.self_attn.k_scale': f32([2], 0.25, 0.5), 'model.layers.0.self_attn.v_scale': f32([2], 0.25, 0.5), 'model.layers.1.self_attn.attn.kv_scale': f32([2], 1, 2) };
const folder = checkpoint(scaleTensors, { ...model, quantization_config: { quant_method: 'compressed-tensors', kv_cache_scheme: { num_bits: 8, type: 'float', strategy: 'attn_head', dynamic: false, symmetric: true } } });
const index = json({ metadata: { total_size: 100 }, weight_map: Object.fromEntries(Object.keys(scaleTensors).map((name) => [name, 'model-00001-of-00001.safetensors'])) });
const legacy = json({ model_type: 'llama', kv_cache: { dtype: 'float8_e4m3fn', scaling_factor: { 0: { 0: 0.5, 1: 0.25 }, 1: { 0: 0.5, 1: 0.25 } } } });
const quantization = json({ producer: { name: 'modelopt' }, quantization: { quant_algo: 'FP8', kv_cache_quant_algo: 'FP8' } });

/** Text as it is, without anything around it. */
const plainText = (bytes: Uint8Array): Sample => ({ bytes });
const NOT_THERE = /there is no | is missing, in which | lacks ".*", which /;

const drawer = mkdtempSync(join(tmpdir(), 'fp8-kv-fuzz-'));
process.on('exit', () => rmSync(drawer, { recursive: true, force: true }));

/** What a command makes of a file. */
async function output(command: Command, bytes: Uint8Array, kind: string): Promise<Uint8Array> {
  const [input, out] = [join(drawer, `in.${kind}`), join(drawer, `out.${kind}`)];
  writeFileSync(input, bytes);
  const { log } = console;
  console.log = () => {};
  try {
    await command.run([input, '-o', out]);
  } finally {
    console.log = log;
  }
  return new Uint8Array(readFileSync(out));
}

export const readers: Readers = {
  safetensors: {
    samples: [someTensors, codes].map(safetensors),
    read: (bytes) => {
      const { tensors, metadata } = parseSafetensors(bytes, 'fuzz');
      // What is read can be written, and is then read again.
      const again = parseSafetensors(serializeSafetensors(tensors, metadata), 'written');
      if (again.tensors.size !== tensors.size || again.metadata.size !== metadata.size) throw new Error('what was read is not what was written');
      return { tensors, metadata };
    },
  },
  npy: {
    samples: someNpy.map(npy),
    read: (bytes) => {
      const { descr, shape, data, dtype } = parseNpy(bytes, 'fuzz');
      return { descr, shape, data, dtype, written: serializeNpy(descr, shape, data) };
    },
  },
  npz: {
    samples: [{ bytes: Uint8Array.from(archive([{}, { name: 'b.npy', method: 8, data: deflateRawSync(hello) }], 2, 'by numpy')) }],
    read: (bytes) => [...parseNpz(bytes, 'fuzz', (packed, limit) => inflateRawSync(packed, { maxOutputLength: Math.max(1, limit) }))],
  },
  'dumps of other kernels': {
    samples: dumps.map(safetensors),
    // Cases may ask for pools of any size, which is not what is fuzzed.
    read: (bytes) => (readsSmall(bytes) ? checkCase(bytes, 'fuzz') : undefined),
  },
  'append cases': {
    samples: appendCases.map(safetensors),
    read: async (bytes) => {
      const found = readAppendCase(bytes, 'fuzz');
      return [found, isSmall(found.layout, found.blocks) && (await runAppendCase(backend, found))];
    },
  },
  'attend cases': {
    samples: attendCases.map(safetensors),
    read: async (bytes) => {
      const found = readAttendCase(bytes, 'fuzz');
      return [found, isSmall(found.layout, found.blocks) && (await runAttendCase(backend, found))];
    },
  },
  snapshots: {
    samples: [safetensors(snapshot)],
    read: async (bytes) => {
      const found: unknown[] = [];
      await readSnapshot(bytes, 'fuzz', { head: (each) => void found.push(each), layer: (_, tensors) => void found.push(tensors) });
      return found;
    },
  },
  'snapshot heads': {
    samples: [plainText(json(head))],
    read: (bytes) => readHead(text(bytes), (reason) => new FormatError('fuzz', 0, reason)),
  },
  'snapshots into a cache': {
    samples: [safetensors(await savedCache())],
    read: async (bytes) => {
      const cache = newCache();
      try {
        return (await loadSnapshot(cache, bytes)).map(({ length }) => length);
      } finally {
        cache.dispose();
      }
    },
  },
  'page values': {
    samples: [{ bytes: page, inner: page.slice(40), wrap: checked }],
    read: (bytes) => decodePage(bytes, key, pageLayouts),
  },
  'checkpoints: config.json': {
    samples: [plainText(folder['config.json'])],
    read: (bytes) => readScales({ ...folder, 'config.json': bytes }),
    plain: NOT_THERE,
  },
  'checkpoints: scales': {
    samples: [safetensors(folder['model.safetensors'])],
    read: (bytes) => readScales({ ...folder, 'model.safetensors': bytes }),
    plain: NOT_THERE,
  },
  'checkpoints: a file of scales': {
    samples: [safetensors(folder['model.safetensors']), plainText(legacy)],
    read: (bytes) => readScales(bytes),
    plain: NOT_THERE,
  },
  'checkpoints: index': {
    samples: [plainText(index)],
    read: (bytes) => readScales({ 'config.json': folder['config.json'], 'model.safetensors.index.json': bytes, 'model-00001-of-00001.safetensors': folder['model.safetensors'] }),
    plain: NOT_THERE,
  },
  'checkpoints: kv_cache_scales.json': {
    samples: [plainText(legacy)],
    read: (bytes) => readScales({ 'config.json': json(model), 'kv_cache_scales.json': bytes }),
    plain: NOT_THERE,
  },
  'checkpoints: hf_quant_config.json': {
    samples: [plainText(quantization)],
    read: (bytes) => readScales({ 'config.json': json(model), 'model.safetensors': folder['model.safetensors'], 'hf_quant_config.json': bytes }),
    plain: NOT_THERE,
  },
  'encode .safetensors': { samples: [safetensors(someTensors)], read: (bytes) => output(encode, bytes, 'safetensors'), plain: / expected / },
  'encode .npy': { samples: someNpy.map(npy), read: (bytes) => output(encode, bytes, 'npy'), plain: / expected / },
  'decode .safetensors': { samples: [safetensors(codes)], read: (bytes) => output(decode, bytes, 'safetensors'), plain: / expected / },
  'decode .npy': { samples: someNpy.map(npy), read: (bytes) => output(decode, bytes, 'npy'), plain: / expected / },
};
