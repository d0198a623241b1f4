/** A device that counts what is made on it. */

export interface DeviceCounts {
  /** Buffers created and not destroyed. */
  buffers: number;
  created: number;
  pipelines: number;
  modules: number;
  readbacks: number;
  submits: number;
  bindGroups: number;
  /** Calls of `queue.writeBuffer`. */
  writes: number;
  dispatches: number;
}

/** The device as its users see it; buffers and encoders made by it count, too. */
export function counted(device: GPUDevice): { readonly device: GPUDevice; readonly counts: DeviceCounts } {
  const counts: DeviceCounts = { buffers: 0, created: 0, pipelines: 0, modules: 0, readbacks: 0, submits: 0, bindGroups: 0, writes: 0, dispatches: 0 };
  const createBuffer = (descriptor: GPUBufferDescriptor): GPUBuffer => {
    const buffer = device.createBuffer(descriptor);
    counts.buffers++;
    counts.created++;
    let alive = true;
    const { destroy, mapAsync } = buffer;
    buffer.destroy = () => {
      if (alive) counts.buffers--;
      alive = false;
      destroy.call(buffer);
    };
    buffer.mapAsync = (...args) => {
      counts.readbacks++;
      return mapAsync.apply(buffer, args);
    };
    return buffer;
  };
  const createCommandEncoder = (descriptor?: GPUCommandEncoderDescriptor): GPUCommandEncoder => {
    const encoder = device.createCommandEncoder(descriptor);
    const { beginComputePass } = encoder;
    encoder.beginComputePass = (...args) => {
      const pass = beginComputePass.apply(encoder, args);
      const { dispatchWorkgroups } = pass;
      pass.dispatchWorkgroups = (...counted) => {
        counts.dispatches++;
        dispatchWorkgroups.apply(pass, counted);
      };
      return pass;
    };
    return encoder;
  };
  const queue = new Proxy(device.queue, {
    get(target, name) {
      if (name === 'submit') counts.submits++;
      if (name === 'writeBuffer') counts.writes++;
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  const proxy = new Proxy(device, {
    get(target, name) {
      if (name === 'createBuffer') return createBuffer;
      if (name === 'queue') return queue;
      if (name === 'createComputePipeline' || name === 'createComputePipelineAsync') counts.pipelines++;
      if (name === 'createCommandEncoder') return createCommandEncoder;
      if (name === 'createShaderModule') counts.modules++;
      if (name === 'createBindGroup') counts.bindGroups++;
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  return { device: proxy, counts };
}
