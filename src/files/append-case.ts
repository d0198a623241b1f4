/** `append/1` case files: everything one append needs, perhaps the cache it starts from and the one it must give. */
import type { AppendCall, AppendStatus, Backend, NhdTensors } from '../backend.js';
import { bytesOf, formats } from '../formats.js';
import { pageLayout, type PageLayout } from '../layout.js';
import { isGiven } from '../policies.js';
import type { RecipeName } from '../recipe.js';
import type { GivenScale } from '../scale.js';
import { CaseReader, holdsFormat, scaleShape, scaleValues, type CaseSide } from './case.js';
import { parseSafetensors, serializeSafetensors } from './safetensors.js';
import { int32, type Tensor } from './tensor.js';

export interface AppendCase {
  readonly layout: PageLayout;
  readonly blocks: number;
  /** The cache to start from; zeros when absent. */
  readonly start: NhdTensors | undefined;
  readonly call: Omit<AppendCall, 'pages'>;
  /** `k_cache`, `v_cache`, `k_scale`, `v_scale` where the file holds what they must be. */
  readonly expected: ReadonlyMap<string, Tensor>;
}

/** The tensors that an append results in. */
export type CacheTensors = ReadonlyMap<string, Tensor>;

/** What the file says one side's tensors must be afterwards; a dtype or shape that they cannot have is refused. */
function expectedSide(reader: CaseReader, side: 'k' | 'v', { dtype, granularity, groupSize }: CaseSide, shape: readonly number[]): [string, Tensor][] {
  const results = [
    { name: `${side}_cache`, dtype: formats[dtype].safetensors, fits: (tensor: Tensor) => holdsFormat(tensor, dtype), shape },
    // Scales of f16 are compared as the numbers they are.
    { name: `${side}_scale`, dtype: 'F32', fits: (tensor: Tensor) => tensor.dtype === 'F32' || tensor.dtype === 'F16', shape: scaleShape(granularity, groupSize, shape) },
  ] as const;
  return results.flatMap((result): [string, Tensor][] => {
    const tensor = reader.content.tensors.get(`expected.${result.name}`);
    if (tensor === undefined) return [];
    if (!result.fits(tensor)) reader.fail(`tensor "expected.${result.name}" expected ${result.dtype}, got ${tensor.dtype}`);
    reader.expectShape(`expected.${result.name}`, tensor.shape, result.shape);
    const data = result.name.endsWith('_scale') ? bytesOf(scaleValues(tensor, result.name)) : tensor.data;
    return [[result.name, { ...tensor, dtype: result.dtype, data }]];
  });
}

/** @throws FormatError when the file is not such a case; TypeError or RangeError for a shape that no page can have */
export function readAppendCase(bytes: Uint8Array, file: string): AppendCase {
  const reader = new CaseReader(parseSafetensors(bytes, file), file, 'append/1');
  const key = reader.tensor('key', 3);
  const value = reader.tensor('value', 3);
  reader.expectShape('value', value.shape, key.shape);
  const [tokens, kvHeads, headDim] = key.shape;
  const slots = reader.tensor('slot_mapping', 1);
  reader.expectShape('slot_mapping', slots.shape, [tokens]);
  const starts = reader.has('k_cache') || reader.has('v_cache');
  const kCache = starts ? reader.tensor('k_cache', 4) : undefined;
  const vCache = starts ? reader.tensor('v_cache', 4) : undefined;
  const blocks = reader.size('blocks', kCache?.shape[0]);
  const blockSize = reader.size('block_size', kCache?.shape[1]);
  const shape = [blocks, blockSize, kvHeads, headDim];
  if (kCache) reader.expectShape('k_cache', kCache.shape, shape);
  if (vCache) reader.expectShape('v_cache', vCache.shape, shape);
  const k = kCache ? reader.side('k', kCache) : reader.startless('k', shape);
  const v = vCache ? reader.side('v', vCache) : reader.startless('v', shape);
  const { values, dtype } = reader.floats('key', key);
  const valueFloats = reader.floats('value', value);
  if (valueFloats.dtype !== dtype) reader.fail(`tensor "value" expected the dtype of "key", got ${value.dtype}`);
  return {
    layout: pageLayout({ kvHeads, headDim, blockSize, k, v }),
    blocks,
    start: kCache && vCache && {
      keyCache: reader.codes('k_cache', kCache), valueCache: reader.codes('v_cache', vCache), keyScale: k.computed, valueScale: v.computed,
    },
    call: {
      key: values,
      value: valueFloats.values,
      dtype,
      slotMapping: reader.typed('slot_mapping', slots, int32),
      // Given scales are divided by, whatever the recipe is called.
      recipe: isGiven(k.granularity) && isGiven(v.granularity) ? undefined : (reader.text('recipe') as RecipeName | undefined),
      kScale: k.given,
      vScale: v.given,
    },
    expected: new Map([...expectedSide(reader, 'k', k, shape), ...expectedSide(reader, 'v', v, shape)]),
  };
}

function sideTensors(layout: PageLayout, blocks: number, side: 'k' | 'v', codes: ArrayBufferView, scales: Float32Array | undefined, given: GivenScale | undefined): [string, Tensor][] {
  const { format, granularity, groupSize } = layout[side];
  const shape = [blocks, layout.blockSize, layout.kvHeads, layout.headDim];
  const cache: [string, Tensor] = [`${side}_cache`, { dtype: formats[format].safetensors, shape, data: bytesOf(codes) }];
  if (!formats[format].quantized) return [cache];
  const values = scales ?? (given instanceof Float32Array ? given : Float32Array.of(given ?? 1));
  return [cache, [`${side}_scale`, { dtype: 'F32', shape: scaleShape(granularity, groupSize, shape), data: bytesOf(values) }]];
}

/** Runs a case on a backend: the status, and the whole cache afterwards. */
export async function runAppendCase(backend: Backend, { layout, blocks, start, call }: AppendCase): Promise<{ status: AppendStatus; tensors: CacheTensors }> {
  const pages = backend.createPages(layout, blocks);
  try {
    if (start) await pages.import(start);
    const status = await backend.append({ ...call, pages });
    const { keyCache, valueCache, keyScale, valueScale } = await pages.export();
    const tensors = new Map([
      ...sideTensors(layout, blocks, 'k', keyCache, keyScale, call.kScale),
      ...sideTensors(layout, blocks, 'v', valueCache, valueScale, call.vScale),
    ]);
    return { status, tensors };
  } finally {
    pages.dispose();
  }
}

/** The result as a file. */
export function writeAppendResult(tensors: CacheTensors): Uint8Array {
  return serializeSafetensors(tensors, new Map([['fp8_kv_result', 'append/1']]));
}
