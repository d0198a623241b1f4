/** Where a cache's layers keep their tokens: pages of a backend, and the groups that say which page is whose. */
import type { AttentionOptions, Backend, Pages } from '../backend.js';
import type { PageLayout } from '../layout.js';
import type { Recipe } from '../recipe.js';
import type { Layer, ResolvedCache } from './config.js';
import type { GroupShape, PageGroup } from './groups.js';
import { residualRoom } from './residual.js';

/** Pages of one layer, and the number of the group that they are of. */
interface Store {
  readonly pages: Pages;
  readonly group: number;
}

/** A layer's pages, and what its calls say of them. */
export interface LayerStores {
  readonly codes: Store & {
    readonly recipe: { readonly k: Recipe; readonly v: Recipe };
    readonly kScale: Float32Array | undefined;
    readonly vScale: Float32Array | undefined;
  };
  /** Tokens that are not quantized yet. */
  readonly residual: Store | undefined;
  readonly queryHeads: number;
  readonly headDim: number;
  readonly attention: AttentionOptions;
}

export interface Stores {
  readonly groups: readonly PageGroup[];
  readonly layers: readonly LayerStores[];
}

/** A store before its pages are made: which layer it is of, and of which group. */
interface StorePlan {
  readonly layer: number;
  readonly kind: 'codes' | 'residual';
  readonly layout: PageLayout;
  readonly group: number;
}

/** All groups and stores of a cache. Layers' codes come first, in their order, then the residuals. */
export interface StorePlans {
  readonly groups: readonly GroupShape[];
  readonly stores: readonly StorePlan[];
}

function shapeOf({ layout: { blockSize }, ring, residual }: Layer, { pageCount, sequences, contiguous }: ResolvedCache): GroupShape {
  const late = residual !== undefined;
  if (!ring) return { kind: 'all', blockSize, pageCount, capacity: Infinity, window: Infinity, sinkTokens: 0, late };
  const { window, sinkTokens, capacity } = ring;
  const pages = contiguous ? 1 : Math.ceil(sinkTokens / blockSize) + Math.ceil(capacity / blockSize);
  return { kind: 'ring', blockSize, pageCount: sequences * pages, capacity, window, sinkTokens, late };
}

/** Layers that keep the same tokens in the same places. */
export function planStores(cache: ResolvedCache): StorePlans {
  const groups: GroupShape[] = [];
  const numbers = new Map<string, number>();
  const groupOf = (shape: GroupShape): number => {
    const name = JSON.stringify(shape);
    const number = numbers.get(name) ?? groups.push(shape) - 1;
    numbers.set(name, number);
    return number;
  };
  const stores = cache.layers.map((layer, index): StorePlan => ({ layer: index, kind: 'codes', layout: layer.layout, group: groupOf(shapeOf(layer, cache)) }));
  const { residual, chunk = 1, sequences, context, limited } = cache;
  if (residual) {
    const { blockSize } = residual;
    const shape: GroupShape = { kind: 'residual', blockSize, pageCount: sequences * residualRoom(residual, chunk, limited ? context : Infinity), capacity: Infinity, window: Infinity, sinkTokens: 0, late: false };
    for (const [index, layer] of cache.layers.entries()) if (layer.residual) stores.push({ layer: index, kind: 'residual', layout: layer.residual, group: groupOf(shape) });
  }
  return { groups, stores };
}

/** All stores' pages, or none: one that does not fit gives back those before it. */
export function createPages(backend: Backend, { groups, stores }: StorePlans): Pages[] {
  const made: Pages[] = [];
  try {
    for (const { layout, group } of stores) made.push(backend.createPages(layout, groups[group].pageCount));
    return made;
  } catch (error) {
    for (const pages of made) pages.dispose();
    throw error;
  }
}

/** The number of a layer's store; undefined where it has none of the kind. */
export function storeNumber({ stores }: StorePlans, layer: number, kind: StorePlan['kind']): number | undefined {
  const at = stores.findIndex((store) => store.layer === layer && store.kind === kind);
  return at < 0 ? undefined : at;
}

/** A cache's layers over pages that were made for its stores. */
export function layersOver(plans: StorePlans, layers: readonly Layer[], pages: readonly Pages[]): LayerStores[] {
  return layers.map(({ queryHeads, layout: { headDim }, attention, recipe, kScale, vScale }, index) => {
    const storeOf = (kind: StorePlan['kind']): Store | undefined => {
      const at = storeNumber(plans, index, kind);
      return at === undefined ? undefined : { pages: pages[at], group: plans.stores[at].group };
    };
    return { queryHeads, headDim, attention, codes: { ...storeOf('codes')!, recipe, kScale, vScale }, residual: storeOf('residual') };
  });
}
