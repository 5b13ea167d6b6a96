// A click on a head sorts by that column, the next one the other way round; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const numeric = head.classList.contains("number");
    const value = row => {
      const cell = row.cells[column];
      return numeric ? (cell.dataset.key === undefined ? null : Number(cell.dataset.key)) : cell.textContent.trim() || null;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null);
      return (numeric ? x - y : x.localeCompare(y, undefined, {numeric: true})) * (up ? 1 : -1);
    }));
  }));
}

// Copies the command beside the button, or selects it where the browser allows no copying.
for (const button of document.querySelectorAll(".copy")) {
  const code = button.previousElementSibling;
  button.addEventListener("click", () => {
    const select = () => getSelection().selectAllChildren(code);
    if (!navigator.clipboard) return select();
    navigator.clipboard.writeText(code.textContent).then(() => {
      button.textContent = "copied";
      setTimeout(() => button.textContent = "copy", 1500);
    }, select);
  });
}
