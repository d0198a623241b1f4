/** What the page does where scripts run; without it, it says the same. Plain JavaScript, as it stands in the page. */
export const script = `
'use strict';
// Header cells become buttons that sort: the reference stays on top, what is no number at the end.
const table = document.getElementById('variants');
const heads = [...table.tHead.rows[0].cells];
const body = table.tBodies[1];
const keyOf = (row, column) => column === 0 ? row.cells[0].textContent.trim() : row.cells[column].dataset.value === 'NaN' ? NaN : Number(row.cells[column].dataset.value);
function compare(a, b) {
  if (typeof a === 'string') return a < b ? -1 : a > b ? 1 : 0;
  return a < b ? -1 : a > b ? 1 : 0;
}
function sortBy(column) {
  const sign = heads[column].ariaSort === 'ascending' ? -1 : 1;
  for (const head of heads) head.removeAttribute('aria-sort');
  heads[column].ariaSort = sign === 1 ? 'ascending' : 'descending';
  const rows = [...body.rows];
  const missing = (row) => Number.isNaN(keyOf(row, column));
  rows.sort((a, b) => missing(a) - missing(b) || sign * compare(keyOf(a, column), keyOf(b, column)));
  body.append(...rows);
}
heads.forEach((head, column) => {
  const button = document.createElement('button');
  button.type = 'button';
  button.append(...head.childNodes);
  button.addEventListener('click', () => sortBy(column));
  head.append(button);
});

// One variant's errors at a time.
const select = document.getElementById('variant');
if (select) {
  const pictures = [...document.querySelectorAll('.picture')];
  const show = () => pictures.forEach((picture) => picture.classList.toggle('away', picture.id !== select.value));
  select.addEventListener('change', show);
  select.closest('p').hidden = false;
  show();
}

// The number under the pointer, or where the arrow keys have gone.
const readout = document.getElementById('readout');
function read(grid, cell) {
  document.querySelector('.at')?.classList.remove('at');
  cell.classList.add('at');
  readout.textContent = grid.dataset.side + ', ' + cell.querySelector('title').textContent;
}
for (const grid of document.querySelectorAll('svg.grid')) {
  grid.setAttribute('tabindex', '0');
  grid.setAttribute('role', 'application');
  grid.addEventListener('pointerover', ({ target }) => target.matches('.cells rect') && read(grid, target));
  grid.addEventListener('focus', () => grid.querySelector('.at') || read(grid, grid.querySelector('.cells rect')));
  grid.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const from = grid.querySelector('.at') ?? grid.querySelector('.cells rect');
    const to = step.map((by, i) => Number(from.getAttribute('xy'[i])) + by);
    const cell = grid.querySelector('.cells rect[x="' + to[0] + '"][y="' + to[1] + '"]');
    if (cell) read(grid, cell);
  });
}
if (readout) readout.hidden = false;
`;
