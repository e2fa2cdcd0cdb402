"""The script of a page: a click on a head, or Enter on it, sorts the table by that column.

Without it the heads are plain words. Columns of numbers sort by value ("27 [ 18, 72 ]" by its
first number), others as text; empty cells come last; a second click turns the order round.
"""

import base64
import hashlib

SCRIPT = r"""
(() => {
  const NUMBER = /^[+\-\u2212]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?(\s?[%x])?(\s*\[.*\])?$/i;
  const value = (cell) =>
    NUMBER.test(cell) ? parseFloat(cell.replace(/,/g, "").replace("\u2212", "-")) : NaN;
  const order = (cells, down) => {
    const numbers = cells.every((cell) => cell === "" || !Number.isNaN(value(cell)));
    return (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const by = numbers ? value(a) - value(b) : a.localeCompare(b, undefined, { numeric: true });
      return down ? -by : by;
    };
  };
  const sort = (body, column, down) => {
    const rows = Array.from(body.rows, (row) => [row.cells[column].textContent.trim(), row]);
    const before = order(rows.map((row) => row[0]), down);
    rows.sort((a, b) => before(a[0], b[0]));
    body.append(...rows.map((row) => row[1]));
  };
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const heads = Array.from(table.tHead.rows[0].cells);
    if (body.rows.length < 2) continue;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(body, column, down);
      });
    });
  }
})();
"""
DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = f"script-src 'sha256-{DIGEST}'"  # this script and no other may run
STYLE = """
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; white-space: nowrap; border-radius: 3px; }
th button:hover { color: var(--ink); }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort="ascending"] button::after { content: " \\25B2"; }
th[aria-sort="descending"] button::after { content: " \\25BC"; }
"""
