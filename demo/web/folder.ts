/** Folders that a visitor chooses, or drops on the page. */
import { byId } from './dom.js';
import type { Folder } from './messages.js';

/** Files that a browser gives for a chosen folder, without those of folders below. */
function chosenFolder(files: readonly File[]): Folder | undefined {
  const top = files.filter(({ webkitRelativePath }) => webkitRelativePath.split('/').length === 2);
  return files.length === 0 ? undefined : { name: files[0].webkitRelativePath.split('/')[0], files: top };
}

const fileOf = (entry: FileSystemFileEntry): Promise<File> => new Promise((resolve, reject) => entry.file(resolve, reject));

/** A directory's entries, which come in portions. */
async function entriesOf(directory: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = directory.createReader();
  const entries: FileSystemEntry[] = [];
  for (;;) {
    const portion = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (portion.length === 0) return entries;
    entries.push(...portion);
  }
}

const isFile = (entry: FileSystemEntry): entry is FileSystemFileEntry => entry.isFile;

/** A folder that was dropped, or the files that were. */
async function droppedFolder(entries: readonly FileSystemEntry[]): Promise<Folder | undefined> {
  const directory = entries.find((entry) => entry.isDirectory) as FileSystemDirectoryEntry | undefined;
  const files = directory ? await entriesOf(directory) : entries;
  return entries.length === 0 ? undefined : { name: directory?.name ?? 'dropped', files: await Promise.all(files.filter(isFile).map(fileOf)) };
}

/** @param take is given folders, and what could not be read of one */
export function watchFolders(take: (folder: Folder) => void, complain: (error: unknown) => void): void {
  const input = byId<HTMLInputElement>('folder');
  input.addEventListener('change', () => {
    const folder = chosenFolder([...(input.files ?? [])]);
    // So that the same one can be chosen again.
    input.value = '';
    if (folder) take(folder);
  });
  const overlay = byId('drop');
  const bringsFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;
  addEventListener('dragover', (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    overlay.hidden = false;
  });
  addEventListener('dragleave', (event) => {
    if (event.relatedTarget === null) overlay.hidden = true;
  });
  addEventListener('drop', (event) => {
    overlay.hidden = true;
    if (!bringsFiles(event)) return;
    event.preventDefault();
    // Entries are gone when the event is over.
    const entries = [...event.dataTransfer!.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
    droppedFolder(entries).then((folder) => folder && take(folder), complain);
  });
}
