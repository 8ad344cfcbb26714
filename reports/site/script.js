"use strict";
// What the pages can do only with a script: light or dark by choice, sorting, filtering, copying, opening what a link leads to.
(() => {
  const root = document.documentElement;
  const remembered = {
    get: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
    set: (value) => { try { value ? localStorage.setItem("theme", value) : localStorage.removeItem("theme"); } catch { /* private */ } },
  };
  const chosen = remembered.get();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;  // before the page is painted

  const made = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  function theme() {
    const next = { "": "light", light: "dark", dark: "" };
    const words = { "": "as the system", light: "light", dark: "dark" };
    const button = made("button", { type: "button", className: "theme" });
    const show = () => { button.textContent = `Colours: ${words[root.dataset.theme ?? ""]}`; };
    button.addEventListener("click", () => {
      const value = next[root.dataset.theme ?? ""];
      if (value) root.dataset.theme = value; else delete root.dataset.theme;
      remembered.set(value);
      show();
    });
    show();
    document.querySelector("header.top")?.append(button);
  }

  // A number at the start of a text, as the pages print it: 1,234.5, -0.3 or 57.7 ± 0.4.
  const number = (text) => {
    const match = /^\s*([-−+]?[\d,]*\.?\d+(?:e[-+]?\d+)?)/i.exec(text);
    return match ? Number(match[1].replaceAll(",", "").replace("−", "-")) : NaN;
  };
  const value = (row, place) => {
    const cell = row.cells[place];
    return cell ? (cell.dataset.sort ?? cell.textContent.trim()) : "";
  };
  function compare(a, b) {
    const [x, y] = [number(a), number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  }

  function sortable(table) {
    const [body] = table.tBodies;
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const button = made("button", { type: "button", className: "sort" });
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numeric = head.classList.contains("number");
        const first = numeric ? "descending" : "ascending";
        const second = numeric ? "ascending" : "descending";
        const order = { [first]: second, [second]: "" }[head.getAttribute("aria-sort") ?? ""] ?? first;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (order) head.setAttribute("aria-sort", order);
        const sign = order === "descending" ? -1 : 1;
        const empty = (row) => value(row, place) === "" || value(row, place) === "–";
        const rows = !order ? original : [...original].sort((a, b) =>
          empty(a) - empty(b) || (empty(a) ? 0 : sign * compare(value(a, place), value(b, place))));
        body.append(...rows);
      });
    });
  }

  let filters = 0;
  function filtered(table) {
    const rows = [...table.tBodies[0].rows];
    const name = `filter-${++filters}`;
    const input = made("input", { type: "search", id: name, autocomplete: "off" });
    const said = made("output", { htmlFor: name });
    const show = () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every((word) => text.includes(word));
        count += !row.hidden;
      }
      said.textContent = wanted.length ? `${count} of ${rows.length}` : "";
    };
    input.addEventListener("input", show);
    const box = made("div", { className: "filter" }, made("label", { htmlFor: name, textContent: "Only rows with" }), input, said);
    (table.closest(".scroll") ?? table).before(box);
  }

  function copyable(code) {
    const button = made("button", { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-label", `Copy the command ${code.textContent}`);
    button.addEventListener("click", async () => {
      let done = true;
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {  // a page from a disk may not be allowed to: select it, so that one key copies it
        const range = document.createRange();
        range.selectNodeContents(code);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Selected";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    code.after(" ", button);
  }

  // What does not scroll need not be reached with the tab key.
  function reachable() {
    for (const box of document.querySelectorAll(".scroll")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
    }
  }

  // A link into something folded opens it.
  function reveal() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    target.scrollIntoView();
  }

  document.addEventListener("DOMContentLoaded", () => {
    theme();
    document.querySelectorAll("table.sortable").forEach(sortable);
    document.querySelectorAll("table.filtered").forEach(filtered);
    document.querySelectorAll("code.command").forEach(copyable);
    reachable();
    addEventListener("resize", reachable);
    reveal();
  });
  addEventListener("hashchange", reveal);
  // A figure or a reason that is folded should not be missing on paper.
  addEventListener("beforeprint", () => document.querySelectorAll("details.group").forEach((each) => { each.open = true; }));
})();
