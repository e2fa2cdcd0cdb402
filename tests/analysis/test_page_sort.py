"""Tables of a page sort in a browser; here in a small document of Node's, where there is one."""

import base64
import hashlib
import json
import re
import shutil
import subprocess

import pytest

from analysis import page, page_sort

# Just as much of a document as the script asks for.
DOCUMENT = """
class Node {
  constructor(tag, text) {
    Object.assign(this, { tag, own: text || "", children: [], attributes: {}, on: {} });
  }
  get childNodes() { return [...this.children]; }
  get textContent() { return this.own + this.children.map((each) => each.textContent).join(""); }
  append(...nodes) {
    for (const node of nodes) {
      if (node.parent) node.parent.children.splice(node.parent.children.indexOf(node), 1);
      node.parent = this;
      this.children.push(node);
    }
  }
  setAttribute(name, value) { this.attributes[name] = value; }
  getAttribute(name) { return this.attributes[name]; }
  addEventListener(name, call) { this.on[name] = call; }
  get rows() { return this.children; }
  get cells() { return this.children; }
}
const made = (tag, parts) => { const node = new Node(tag); node.append(...parts); return node; };
const cell = (tag, text) => made(tag, [new Node("#text", text)]);
const line = (tag, cells) => made("tr", cells.map((text) => cell(tag, text)));
const given = GIVEN;
const table = { tHead: made("thead", [line("th", given.heads)]),
                tBodies: [made("tbody", given.rows.map((row) => line("td", row)))] };
globalThis.document = { querySelectorAll: () => [table], createElement: (tag) => new Node(tag) };
"""
AFTER = """
const seen = () => ({
  order: table.tBodies[0].rows.map((row) => row.cells[given.column].textContent),
  sorts: table.tHead.rows[0].cells.map((head) => head.getAttribute("aria-sort")),
  heads: table.tHead.rows[0].cells.map((head) => head.children[0].tag),
});
const out = [seen()];
for (let click = 0; click < 2; click++) {
  table.tHead.rows[0].cells[given.column].children[0].on.click?.();
  out.push(seen());
}
console.log(JSON.stringify(out));
"""


def clicked(heads, rows, column):
    """What the table is before a click, after one and after two."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    given = json.dumps({"heads": heads, "rows": rows, "column": column})
    source = DOCUMENT.replace("GIVEN", given) + page_sort.SCRIPT + AFTER
    found = subprocess.run([node, "-e", source], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize(
    ("cells", "rising"),
    [
        (["1,000", "20", "3"], ["3", "20", "1,000"]),
        (["1.5e+20", "7.00e+19", "2e+18"], ["2e+18", "7.00e+19", "1.5e+20"]),
        (["+0.10", "\u22120.20", "-0.30"], ["-0.30", "\u22120.20", "+0.10"]),
        (["27 [ 18, 72 ]", "9 [ 1, 99 ]", ""], ["9 [ 1, 99 ]", "27 [ 18, 72 ]", ""]),
        (["12 %", "3 %"], ["3 %", "12 %"]),
        (["n27000", "n3000", "9a3f"], ["9a3f", "n3000", "n27000"]),
    ],
)
def test_a_click_sorts_up_and_another_down_with_empty_cells_last(cells, rising):
    rows = [[cell, f"row {index}"] for index, cell in enumerate(cells)]
    before, up, down = clicked(["a", "b"], rows, 0)
    assert before["order"] == cells and before["sorts"] == ["none", "none"]
    assert up["order"] == rising and up["sorts"] == ["ascending", "none"]
    empty = [cell for cell in rising if cell == ""]
    assert down["order"] == [cell for cell in reversed(rising) if cell] + empty
    assert down["sorts"] == ["descending", "none"]


def test_heads_are_buttons_that_the_keyboard_reaches_and_a_single_row_keeps_plain_heads():
    (before, *_) = clicked(["a", "b"], [["1", "x"], ["2", "y"]], 1)
    assert before["heads"] == ["button", "button"]
    (before, *_) = clicked(["a"], [["1"]], 0)
    assert before["heads"] == ["#text"] and before["sorts"] == [None]


def test_the_policy_of_a_page_lets_this_script_run_and_no_other():
    source = page.page("t", page.table(("a", "b"), [(1, 2), (3, 4)]))
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', source)
    assert f"script-src 'sha256-{digest}'" in policy and "unsafe-inline'; script" not in policy
    assert "default-src 'none'" in policy and source.count("<script") == 1
    assert source.count('<th class="text" scope="col">') == 1 and 'scope="col">b' in source
