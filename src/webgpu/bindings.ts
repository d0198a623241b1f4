/** Bind groups that serve one call after another. */
import type { Region } from './memory.js';
import type { Pipeline } from './pipelines.js';

/** Each kernel of a layer has one, and a second for results that go elsewhere every other step; twice that. */
const KEPT_GROUPS = 16;

interface Kept {
  readonly compiled: Pipeline;
  readonly regions: readonly Region[];
  readonly group: GPUBindGroup;
}

/** Whether a region binds as another did. An offset that is stated when the group is set is no part of it. */
function bindsAlike(a: Region, b: Region, dynamic: boolean): boolean {
  return a.buffer === b.buffer && a.size === b.size && (dynamic || a.offset === b.offset);
}

function serves({ compiled, regions }: Kept, wanted: Pipeline, given: readonly Region[]): boolean {
  if (compiled !== wanted) return false;
  for (let i = 0; i < given.length; i++) if (!bindsAlike(regions[i], given[i], wanted.dynamic[i])) return false;
  return true;
}

/**
 * The bind groups that calls on one layer's pages have made last. A decode step binds what the step before bound, but for
 * offsets, so that it makes none. They keep the caller's buffers from being collected until others have taken their place.
 */
export class BindGroups {
  readonly #device: GPUDevice;
  readonly #kept: Kept[] = [];
  #oldest = 0;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** @param regions what each binding of the kernel is */
  find(compiled: Pipeline, regions: readonly Region[]): GPUBindGroup {
    for (const kept of this.#kept) if (serves(kept, compiled, regions)) return kept.group;
    const entries = regions.map(({ buffer, offset, size }, binding) => ({ binding, resource: { buffer, offset: compiled.dynamic[binding] ? 0 : offset, size } }));
    const group = this.#device.createBindGroup({ layout: compiled.layout, entries });
    this.#kept[this.#oldest] = { compiled, regions, group };
    this.#oldest = (this.#oldest + 1) % KEPT_GROUPS;
    return group;
  }

  clear(): void {
    this.#kept.length = 0;
    this.#oldest = 0;
  }
}
