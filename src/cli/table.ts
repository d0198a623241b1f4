/** A table: the first column to the left, the others to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column].length)));
  const line = (cells: readonly string[]) => cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column]))).join('  ');
  return [line(head), ...rows.map(line)].join('\n');
}

/**
 * As {@link table}, but where a terminal has too few columns for it, without some of its own.
 * @param dispensable titles, in the order in which they are left out
 * @param columns of the terminal
 */
export function fittingTable(head: readonly string[], rows: readonly (readonly string[])[], dispensable: readonly string[], columns = Infinity): string {
  for (let left = 0; ; left++) {
    const without = dispensable.slice(0, left);
    const kept = (cells: readonly string[]): string[] => cells.filter((_, column) => !without.includes(head[column]));
    const drawn = table(kept(head), rows.map(kept));
    if (left < dispensable.length && drawn.split('\n', 1)[0].length > columns) continue;
    return left === 0 ? drawn : `${drawn}\nToo wide for this terminal, and left out: ${without.join(', ')}.`;
  }
}
