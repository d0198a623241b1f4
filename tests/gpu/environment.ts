/** Which adapter WebGPU gets in tests and benches, and what a process needs in its environment for that, from its start on. */
import { join } from 'node:path';
import { packaged, unpackedFolder } from './unpack.js';

const adapters = ['system', 'swiftshader'] as const;

/** `FP8_KV_ADAPTER`: the system's own, or SwiftShader, which computes on the CPU. */
export function chosenAdapter(): (typeof adapters)[number] {
  const choice = process.env.FP8_KV_ADAPTER ?? (packaged ? 'swiftshader' : 'system');
  const adapter = adapters.find((name) => name === choice);
  if (adapter === undefined) throw new Error(`FP8_KV_ADAPTER expected ${adapters.join(' or ')}, got ${choice}`);
  if (adapter === 'swiftshader' && !packaged) throw new Error(`FP8_KV_ADAPTER=swiftshader: the package @sparticuz/chromium brings it, for linux-x64 only; this is ${process.platform}-${process.arch}`);
  return adapter;
}

/** `LD_LIBRARY_PATH` with one more folder, searched first. */
export function withLibraries(folder: string): { LD_LIBRARY_PATH: string } {
  const rest = process.env.LD_LIBRARY_PATH;
  return { LD_LIBRARY_PATH: rest ? `${folder}:${rest}` : folder };
}

/** The environment for a process that uses WebGPU: the linker reads its part before any of our code runs. */
export async function adapterEnvironment(): Promise<NodeJS.ProcessEnv> {
  if (chosenAdapter() === 'system') return process.env;
  const folder = await unpackedFolder();
  const driver = join(folder, 'vk_swiftshader_icd.json');
  // Vulkan's loader, which is beside the driver and not on every system, prefers the second name, and knows it since 1.3.207 only.
  return { ...process.env, ...withLibraries(folder), VK_ICD_FILENAMES: driver, VK_DRIVER_FILES: driver };
}
