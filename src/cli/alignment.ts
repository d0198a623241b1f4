/** `doctor --align`: whether the GPU computes what the CPU does. */
import { alignEncode } from '../align/encode.js';
import { alignBattery, type AlignedCase } from '../align/battery.js';
import { wasmBackend } from '../wasm/open.js';
import { requestWebgpuBackend } from '../webgpu/open.js';

/** Shows how far something is, where there is someone to see it. */
function progress(title: string): (share: number) => void {
  if (!process.stderr.isTTY) return () => {};
  return (share) => {
    const filled = Math.round(share * 40);
    process.stderr.write(share < 1 ? `\r${title} ${'█'.repeat(filled)}${'░'.repeat(40 - filled)} ${Math.floor(share * 100)} %` : `\r${' '.repeat(title.length + 50)}\r`);
  };
}

/**
 * All cases of the battery; with `exhaustive`, all 2³² inputs of each format's encode, too.
 * @param report is given each result as it comes
 * @throws Error where there is no GPU
 */
export async function alignGpu(exhaustive: boolean, report: (result: AlignedCase) => void): Promise<AlignedCase[]> {
  using gpu = await requestWebgpuBackend();
  const { cases } = await alignBattery(wasmBackend(), gpu, { report });
  const results = [...cases];
  for (const format of exhaustive ? (['e4m3fn', 'e5m2'] as const) : []) {
    const result = { name: `encode ${format}, all 2^32 inputs`, alignment: await alignEncode(gpu, format, { progress: progress(`encode ${format}`) }) };
    results.push(result);
    report(result);
  }
  return results;
}
