/** A page that a test in Node looks at and types into, by the DevTools protocol. */
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
  press(key: 'Enter' | 'Tab' | 'ArrowDown' | 'ArrowRight'): Promise<void>;
  /** How wide the window is, what its owner prefers, and whether scripts run. */
  look(look: { readonly width?: number; readonly scheme?: 'light' | 'dark'; readonly scripts?: boolean }): Promise<void>;
  close(): Promise<void>;
}

/** Codes of keys, without which a page takes no notice of them. */
const keyCodes = { Enter: 13, Tab: 9, ArrowDown: 40, ArrowRight: 39 };

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

  return {
    problems,
    async open(url) {
      const loaded = new Promise<void>((resolve) => loads.push(resolve));
      const { errorText } = await send('Page.navigate', { url });
      if (errorText) throw new Error(`${url}: ${errorText}`);
      await loaded;
    },
    async evaluate(expression) {
      const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true });
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    },
    async press(key) {
      const named = { key, code: key, windowsVirtualKeyCode: keyCodes[key] };
      await send('Input.dispatchKeyEvent', { type: 'keyDown', ...named, ...(key === 'Enter' ? { text: '\r' } : {}) });
      await send('Input.dispatchKeyEvent', { type: 'keyUp', ...named });
    },
    async look({ width, scheme, scripts }) {
      if (width !== undefined) await send('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: 1, mobile: false });
      if (scheme !== undefined) await send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
      if (scripts !== undefined) await send('Emulation.setScriptExecutionDisabled', { value: !scripts });
    },
    close: () => chromium.close(),
  };
}
