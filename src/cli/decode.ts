import { parseNpy, serializeNpy } from '../files/npy.js';
import { parseSafetensors, serializeSafetensors } from '../files/safetensors.js';
import type { Tensor } from '../files/tensor.js';
import type { Fp8Format } from '../formats.js';
import { decode as decodeCodes } from '../wasm/codec.js';
import { fileKind, formatOption, JSON_OPTION, oneFile, parse, readBytes, UsageError, type Command } from './command.js';
import { checkWritable, writeWhole } from './output.js';

const fp8: { readonly [dtype: string]: Fp8Format } = { F8_E4M3: 'e4m3fn', F8_E5M2: 'e5m2' };

function decodeData(codes: Uint8Array, format: Fp8Format): Uint8Array {
  return new Uint8Array(decodeCodes(codes, format).buffer);
}

function decodeSafetensors(bytes: Uint8Array, file: string): { bytes: Uint8Array; values: number } {
  const { metadata, tensors } = parseSafetensors(bytes, file);
  let values = 0;
  let found = false;
  const decoded = new Map<string, Tensor>();
  for (const [name, tensor] of tensors) {
    const format = Object.hasOwn(fp8, tensor.dtype) ? fp8[tensor.dtype] : undefined;
    if (format) {
      found = true;
      values += tensor.data.length;
    }
    decoded.set(name, format ? { dtype: 'F32', shape: tensor.shape, data: decodeData(tensor.data, format) } : tensor);
  }
  if (!found) throw new Error(`${file}: expected F8_E4M3 or F8_E5M2 tensors, got none`);
  return { bytes: serializeSafetensors(decoded, metadata), values };
}

function decodeNpy(bytes: Uint8Array, file: string, format: string | undefined): { bytes: Uint8Array; values: number } {
  const { descr, dtype, shape, data } = parseNpy(bytes, file);
  if (dtype !== 'U8' && dtype !== 'F8_E5M2') throw new Error(`${file} holds ${descr}: expected |u1, or |V1, <V1 or <f1 of ml_dtypes`);
  const told = dtype === 'U8' ? undefined : 'e5m2';
  const stated = formatOption(format ?? told);
  if (told !== undefined && stated !== told) throw new UsageError(`--format is ${stated}, but ${file} holds ${descr}, ${told} of ml_dtypes`);
  return { bytes: serializeNpy('<f4', shape, decodeData(data, stated)), values: data.length };
}

export const decode: Command = {
  usage: 'decode IN -o OUT [--format e4m3fn|e5m2]',
  summary: 'Decodes the FP8 codes of a .npy or .safetensors file to f32, exactly.',
  details: `  -o FILE                where to write: the same kind of file as IN
  --format FORMAT        what the codes of a .npy are: e4m3fn (default, but for <f1) or e5m2
${JSON_OPTION}

.npy: |u1, or |V1, <V1 or <f1 of ml_dtypes in, <f4 out. .safetensors: F8_E4M3 and F8_E5M2 tensors are decoded, others kept.`,
  async run(args) {
    const { values, positionals } = parse(args, { output: { type: 'string', short: 'o' }, format: { type: 'string' }, json: { type: 'boolean' } });
    const { input, output } = oneFile(positionals, values.output);
    const kind = fileKind(input, output);
    checkWritable(output);
    if (kind === 'safetensors' && values.format !== undefined) throw new UsageError('--format is for .npy files: a .safetensors file states its dtypes');
    const bytes = readBytes(input);
    const result = kind === 'npy' ? decodeNpy(bytes, input, values.format) : decodeSafetensors(bytes, input);
    writeWhole(output, result.bytes);
    console.log(values.json ? JSON.stringify({ output, values: result.values }) : `${output}: ${result.values} f32 values`);
    return 0;
  },
};
