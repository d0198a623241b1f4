/** A page that a test in Node looks at and types into, by the DevTools protocol. */
import { writeFileSync } from 'node:fs';
import { openChromium } from './chromium.js';

interface Message {
  readonly id?: number;
  readonly method?: string;
  readonly params?: Record<string, any>;
  readonly result?: Record<string, any>;
  readonly error?: { readonly message: string };
}

type Waiting = { resolve(result: Record<string, any>): void; reject(error: Error): void };

export interface Page {
  /** What the page threw or complained of, as long as nobody empties it. */
  readonly problems: string[];
  /** Loads a page and waits until it has. */
  open(url: string): Promise<void>;
  /** The value of an expression, as JSON has it. */
  evaluate<T>(expression: string): Promise<T>;
  /** A key, pressed and released, in what has the focus. */
  press(key: keyof typeof keyCodes): Promise<void>;
  /** Text, put in where the focus is. */
  type(text: string): Promise<void>;
  /** The pointer, moved to a point of an element: its middle, or so far from its left and top, in parts of its size; pressed and released there. */
  click(selector: string, at?: Point): Promise<void>;
  /** The pointer, moved there only. */
  hover(selector: string, at?: Point): Promise<void>;
  /** Pressed at one point of an element, and released at another. */
  drag(selector: string, from: Point, to: Point): Promise<void>;
  /** A file or folder of this machine, dropped on an element; before that `over` is called, as it hovers. */
  drop(selector: string, path: string, over?: () => Promise<void>): Promise<void>;
  /** A file or folder of this machine, chosen in a file input. */
  choose(selector: string, path: string): Promise<void>;
  /** The whole page as a PNG file, or the part of it that an element takes. */
  picture(file: string, selector?: string): Promise<void>;
  /** Waits until an expression is true, for 45 seconds at most. */
  until(expression: string): Promise<void>;
  /** How wide the window is, what its owner prefers, and whether scripts run. */
  look(look: { readonly width?: number; readonly scheme?: 'light' | 'dark'; readonly scripts?: boolean; readonly ratio?: number }): Promise<void>;
  close(): Promise<void>;
}

/** Parts of an element's size, from its left and its top. */
type Point = readonly [x: number, y: number];
const MIDDLE: Point = [0.5, 0.5];

/** How long a page may take to become what is waited for. */
const PATIENCE = 45_000;

/** Codes of keys, without which a page takes no notice of them. */
const keyCodes = { Enter: 13, Tab: 9, Space: 32, PageUp: 33, PageDown: 34, End: 35, Home: 36, ArrowLeft: 37, ArrowUp: 38, ArrowRight: 39, ArrowDown: 40 };

/** What keys write, where they do. */
const keyTexts: { readonly [key: string]: string } = { Enter: '\r', Space: ' ' };

/** @param flags for Chromium, beside those that it always has */
export async function openPage(flags: readonly string[] = []): Promise<Page> {
  const chromium = await openChromium('about:blank', flags);
  const { input, output } = chromium.pipe;
  const waiting = new Map<number, Waiting>();
  const loads: (() => void)[] = [];
  const problems: string[] = [];
  let session: string | undefined;
  let sent = 0;
  let rest = '';

  const heard = ({ id, method, params, result, error }: Message): void => {
    if (id !== undefined) {
      const { resolve, reject } = waiting.get(id)!;
      waiting.delete(id);
      if (error) reject(new Error(error.message));
      else resolve(result!);
    }
    if (method === 'Page.loadEventFired') loads.splice(0).forEach((loaded) => loaded());
    if (method === 'Runtime.exceptionThrown') problems.push(params!.exceptionDetails.exception?.description ?? params!.exceptionDetails.text);
    if (method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(params!.type)) problems.push(JSON.stringify(params!.args));
    if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params!.entry.level)) problems.push(params!.entry.text);
  };
  output.setEncoding('utf8').on('data', (text: string) => {
    const messages = (rest + text).split('\0');
    rest = messages.pop()!;
    for (const message of messages) heard(JSON.parse(message));
  });
  void chromium.ended.then((reason) => waiting.forEach(({ reject }) => reject(new Error(reason))));

  const send = (method: string, params: Record<string, unknown> = {}): Promise<Record<string, any>> =>
    new Promise((resolve, reject) => {
      waiting.set(++sent, { resolve, reject });
      input.write(`${JSON.stringify({ id: sent, method, params, sessionId: session })}\0`);
    });

  const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
  session = (await send('Target.attachToTarget', { targetId, flatten: true })).sessionId;
  for (const domain of ['Page', 'Runtime', 'Log']) await send(`${domain}.enable`);
  // As on telephones: a page is as wide as its window.
  await send('Emulation.setScrollbarsHidden', { hidden: true });

  const evaluate = async (expression: string): Promise<any> => {
    const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result!.value;
  };
  const boxOf = (selector: string): Promise<{ x: number; y: number; width: number; height: number }> =>
    evaluate(`(() => {
      const element = document.querySelector(${JSON.stringify(selector)});
      element.scrollIntoView({ block: 'nearest', behavior: 'instant' });
      const { x, y, width, height } = element.getBoundingClientRect();
      return { x, y, width, height };
    })()`);
  const placeOf = async (selector: string, [x, y]: Point): Promise<{ x: number; y: number }> => {
    const box = await boxOf(selector);
    return { x: box.x + x * box.width, y: box.y + y * box.height };
  };
  const mouse = (type: 'mouseMoved' | 'mousePressed' | 'mouseReleased', place: { x: number; y: number }, buttons: 0 | 1): Promise<unknown> =>
    send('Input.dispatchMouseEvent', { type, ...place, button: type === 'mouseMoved' && buttons === 0 ? 'none' : 'left', buttons, clickCount: 1 });

  return {
    problems,
    async open(url) {
      const loaded = new Promise<void>((resolve) => loads.push(resolve));
      const { errorText } = await send('Page.navigate', { url });
      if (errorText) throw new Error(`${url}: ${errorText}`);
      await loaded;
    },
    evaluate,
    async press(key) {
      const named = { key: key === 'Space' ? ' ' : key, code: key, windowsVirtualKeyCode: keyCodes[key] };
      await send('Input.dispatchKeyEvent', { type: 'keyDown', ...named, ...(key in keyTexts ? { text: keyTexts[key] } : {}) });
      await send('Input.dispatchKeyEvent', { type: 'keyUp', ...named });
    },
    type: async (text) => void (await send('Input.insertText', { text })),
    async click(selector, at = MIDDLE) {
      const place = await placeOf(selector, at);
      await mouse('mouseMoved', place, 0);
      await mouse('mousePressed', place, 1);
      await mouse('mouseReleased', place, 0);
    },
    hover: async (selector, at = MIDDLE) => void (await mouse('mouseMoved', await placeOf(selector, at), 0)),
    async drag(selector, from, to) {
      const [start, end] = [await placeOf(selector, from), await placeOf(selector, to)];
      await mouse('mouseMoved', start, 0);
      await mouse('mousePressed', start, 1);
      for (const part of [0.5, 1]) await mouse('mouseMoved', { x: start.x + part * (end.x - start.x), y: start.y + part * (end.y - start.y) }, 1);
      await mouse('mouseReleased', end, 0);
    },
    async drop(selector, path, over) {
      const place = await placeOf(selector, MIDDLE);
      const event = { ...place, data: { items: [], files: [path], dragOperationsMask: 1 } };
      await send('Input.dispatchDragEvent', { type: 'dragEnter', ...event });
      await send('Input.dispatchDragEvent', { type: 'dragOver', ...event });
      await over?.();
      await send('Input.dispatchDragEvent', { type: 'drop', ...event });
    },
    async choose(selector, path) {
      const { root } = await send('DOM.getDocument');
      const { nodeId } = await send('DOM.querySelector', { nodeId: root.nodeId, selector });
      await send('DOM.setFileInputFiles', { files: [path], nodeId });
    },
    async picture(file, selector = 'html') {
      const { x, y, width, height, left, top } = await evaluate(`({ ...document.querySelector(${JSON.stringify(selector)}).getBoundingClientRect().toJSON(), left: scrollX, top: scrollY })`);
      const clip = { x: x + left, y: y + top, width, height };
      const { data } = await send('Page.captureScreenshot', { format: 'png', captureBeyondViewport: true, clip: { ...clip, scale: 1 } });
      writeFileSync(file, Buffer.from(data, 'base64'));
    },
    async until(expression) {
      const end = Date.now() + PATIENCE;
      while (!(await evaluate(expression))) {
        if (Date.now() > end) throw new Error(`not in ${PATIENCE / 1000} s: ${expression}; the page says ${await evaluate('document.body.innerText')}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    async look({ width, scheme, scripts, ratio = 1 }) {
      if (width !== undefined) await send('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: ratio, mobile: false });
      if (scheme !== undefined) await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
      if (scripts !== undefined) await send('Emulation.setScriptExecutionDisabled', { value: !scripts });
    },
    close: () => chromium.close(),
  };
}
