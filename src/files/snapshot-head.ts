/** What a snapshot says of the cache that it holds, and with it which tensors the file has. */
import { formats, type Format } from '../formats.js';
import type { Granularity } from '../layout.js';
import { isGiven } from '../policies.js';
import type { Recipe } from '../recipe.js';
import type { SafetensorsDtype } from './tensor.js';

/** A cache without its keys and values. All counts are of tokens, unless they say otherwise. */
export interface SnapshotHead {
  readonly version: 1;
  /** Absent where there are no hashes. */
  readonly chain?: SnapshotChain;
  readonly layers: readonly SnapshotLayer[];
  /** Page tables, each shared by some layers. */
  readonly groups: readonly SnapshotGroup[];
  readonly sequences: readonly SnapshotSequence[];
}

/** What the hashes of pages mean. */
export interface SnapshotChain {
  /** What the first one begins with, 64 hex digits: another one says that the model, or what the cache does with it, is another. */
  readonly root: string;
  /** Tokens of each page. */
  readonly blockSize: number;
}

export interface SnapshotLayer {
  /** Index of the group in whose rows it keeps keys and values. */
  readonly group: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly k: SnapshotSide;
  readonly v: SnapshotSide;
  /** Tokens that a row sees, itself included, beside the first sinkTokens: no more are kept than that needs. Absent: all. */
  readonly window?: number;
  /** First tokens that are kept although the window has left them behind. */
  readonly sinkTokens?: number;
  readonly residual?: SnapshotResidual;
}

/** How keys or values are stored. */
export interface SnapshotSide {
  readonly format: Format;
  readonly granularity: Granularity;
  /** Only, and always, with granularity group. */
  readonly groupSize?: number;
  /** Only, and always, where scales are computed (granularities token-head, group). */
  readonly recipe?: Recipe;
  /** How many scales are given (granularities tensor, head, channel): 1, or as many as the granularity has. Absent: none, which is 1 for all. */
  readonly givenScales?: number;
}

/** The most recent tokens, which are not quantized yet. */
export interface SnapshotResidual {
  /** Index of the group in whose rows they are. */
  readonly group: number;
  readonly tokens: number;
  readonly dtype: 'f16' | 'f32';
  /** How tokens leave it: the cache's own word, at most 64 characters. */
  readonly rule: string;
}

export interface SnapshotGroup {
  /** Rows: those of forks are there once. */
  readonly tokens: number;
}

export interface SnapshotSequence {
  readonly length: number;
  /** [groups] */
  readonly held: readonly SnapshotHeld[];
  readonly due?: boolean;
  /** Of its full pages, from the first on: 64 hex digits each. */
  readonly hashes?: readonly string[];
}

/** The positions that a sequence has in a group: 0 … sinks − 1, then floor … end − 1. */
export interface SnapshotHeld {
  readonly sinks: number;
  readonly floor: number;
  readonly end: number;
  /** Where they are, in order of position: rows firstRow … firstRow + count − 1. No row twice. */
  readonly runs: readonly (readonly [firstRow: number, count: number])[];
}

/** The parts of a layer that are tensors, by what follows `layers.N.` in their names, in the order in which they are written. */
const tensorNames = {
  key: 'key', value: 'value', keyScale: 'key_scale', valueScale: 'value_scale', kScale: 'k_scale', vScale: 'v_scale',
  residualKey: 'residual.key', residualValue: 'residual.value',
} as const;

export type SnapshotPart = keyof typeof tensorNames;

/** A tensor that a file with this head has. */
export interface SnapshotTensor {
  readonly part: SnapshotPart;
  readonly name: string;
  readonly format: Format;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

/** Given scales, as tensors. One number is [1], whatever the granularity. */
export function givenShape({ granularity, givenScales }: SnapshotSide, { kvHeads, headDim }: SnapshotLayer): number[] {
  if (granularity === 'tensor' || givenScales === 1) return [1];
  return granularity === 'head' ? [kvHeads] : [kvHeads, headDim];
}

/** The tensors of a layer, in the order in which they are written. */
export function layerTensors(head: SnapshotHead, index: number): SnapshotTensor[] {
  const layer = head.layers[index];
  const { kvHeads, headDim, residual } = layer;
  const tensors: SnapshotTensor[] = [];
  const add = (part: SnapshotPart, format: Format, shape: readonly number[]): void => {
    tensors.push({ part, name: `layers.${index}.${tensorNames[part]}`, format, dtype: formats[format].safetensors, shape });
  };
  const sides = [['k', 'key', 'residualKey'], ['v', 'value', 'residualValue']] as const;
  const tokens = head.groups[layer.group].tokens;
  for (const [side, part] of sides) add(part, layer[side].format, [tokens, kvHeads, headDim]);
  for (const [side, part] of sides) {
    const { granularity, groupSize } = layer[side];
    if (!isGiven(granularity)) add(`${part}Scale`, 'f32', granularity === 'group' ? [tokens, kvHeads, headDim / groupSize!] : [tokens, kvHeads]);
  }
  for (const [side] of sides) if (layer[side].givenScales !== undefined) add(`${side}Scale`, 'f32', givenShape(layer[side], layer));
  if (residual) for (const [, , part] of sides) add(part, residual.dtype, [head.groups[residual.group].tokens, kvHeads, headDim]);
  return tensors;
}
