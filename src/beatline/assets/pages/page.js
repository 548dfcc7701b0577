// Click a column's heading to sort its table by it; click again to turn the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  for (const [column, heading] of [...table.tHead.rows[0].cells].entries()) {
    heading.querySelector("button")?.addEventListener("click", () => {
      const now = heading.getAttribute("aria-sort");
      const descending = now ? now === "ascending" : heading.classList.contains("n"); // numbers from the top, names from A
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const rank = (a, b) => (a === "" || b === "" ? (a === "") - (b === "") : (descending ? -1 : 1) * (a - b || a.localeCompare(b)));
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => rank(key(a), key(b))));
    });
  }
}
