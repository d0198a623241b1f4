/** Devices that run a kernel in place of the one that they lack a feature for. */

/** The device, with every shader rewritten before it is compiled. */
export function withShaders(device: GPUDevice, rewrite: (code: string) => string): GPUDevice {
  return new Proxy(device, {
    get(target, name) {
      if (name === 'createShaderModule') return ({ code }: GPUShaderModuleDescriptor) => device.createShaderModule({ code: rewrite(code) });
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

const rounding = `
fn roundedHalf(x: f32) -> f32 { return quantizeToF16(x); }
fn roundedQuad(x: vec4<f32>) -> vec4<f32> { return quantizeToF16(x); }
`;

/** f32 in place of f16. What is made f16 is rounded as that, what is computed in it is not. */
export function inF32(code: string): string {
  if (!code.includes('enable f16;')) return code;
  const converted = code.replace('enable f16;', '').replaceAll('bitcast<vec2<f16>>', 'unpack2x16float').replaceAll('vec4<f16>(', 'roundedQuad(').replaceAll(/\bf16\(/g, 'roundedHalf(');
  return converted.replaceAll(/\bf16\b/g, 'f32') + rounding;
}
