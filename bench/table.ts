/** A table on the screen, or the same as Markdown. */

const width = (rows: readonly (readonly string[])[], column: number): number => Math.max(...rows.map((row) => row[column].length));

/** @param names columns of them, before those of figures */
export function table(head: readonly string[], body: readonly (readonly string[])[], markdown: boolean, names = 2): string {
  const widths = head.map((_, column) => width([head, ...body], column));
  // Names to the left, figures to the right.
  const line = (row: readonly string[]): string[] => row.map((cell, column) => (column < names ? cell.padEnd(widths[column]) : cell.padStart(widths[column])));
  if (!markdown) return [head, ...body].map((row) => `  ${line(row).join('  ')}`).join('\n');
  const rule = head.map((_, column) => (column < names ? '---' : '---:'));
  return [head, rule, ...body].map((row) => `| ${row.join(' | ')} |`).join('\n');
}
