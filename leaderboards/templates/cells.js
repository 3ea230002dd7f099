// Shared by the tables of the overview, of boards and of models and aligners.
"use strict";
(() => {
  const { esc, show } = culteval;

  // Numbers in tables: rows without a value come last, however the column is sorted.
  if (typeof DataTable !== "undefined") {
    const order = (sign) => (a, b) => (a === "" ? (b === "" ? 0 : 1) : b === "" ? -1 : sign * (a - b));
    DataTable.type("figure", "order", { asc: order(1), desc: order(-1) });
  }

  const EFFECTS = { helps: ["▲", "better"], costs: ["▼", "worse"] };

  // What a cell pools, in words; for a blank cell, why it is blank.
  culteval.explain = (cell, column) => {
    if (cell.v === null) return cell.why || "no value";
    const parts = [`mean over ${cell.in?.length ?? 0} ${cell.in?.length === 1 ? "country" : "countries"} (${(cell.in || []).join(", ")})`];
    if (cell.n) parts.push(`${cell.n} ${cell.n === 1 ? "run" : "runs"}, ${cell.seeds} ${cell.seeds === 1 ? "seed" : "seeds"}`);
    if (cell.basis) parts.push(`${cell.basis === "seeds" ? "range over seeds" : "95 % interval"} ${show(cell.lo ?? 0, column.places)} to ${show(cell.hi ?? 0, column.places)}`);
    if (cell.sd !== undefined) parts.push(`standard deviation over prefixes ${show(cell.sd, column.places)}`);
    if (cell.of) parts.push(`${cell.better || 0} of ${cell.of} runs are improvements`);
    if (cell.collapsed) parts.push(`${cell.collapsed} runs with collapsed answers`);
    if (cell.bare !== undefined) parts.push(`unaligned model in the same countries ${show(cell.bare, column.places)}`);
    if (cell.why) parts.push(cell.why);
    return parts.join("; ");
  };

  culteval.effect = (cell, column) => {
    const [sign, word] = EFFECTS[cell.effect] || [];
    return sign ? ` <abbr class="${cell.effect}" title="whole range ${word} than the unaligned model, ${show(cell.bare, column.places)}">${sign}</abbr>` : "";
  };

  // The value of a cell with its range, runs that are improvements, and what is special about it.
  culteval.cell = (cell, column, link) => {
    if (cell.v === null) return `<abbr class="blank" title="${esc(cell.why || "no value")}">–</abbr>`;
    const value = show(cell.v, column.places);
    const text = link ? `<a href="${esc(link)}" title="${esc(culteval.explain(cell, column))}">${value}</a>` : `<span title="${esc(culteval.explain(cell, column))}">${value}</span>`;
    const partial = cell.in && column.countries.some((code) => !cell.in.includes(code));
    const range = cell.basis ? `<small>${cell.basis === "seeds" ? "seeds " : ""}${show(cell.lo ?? 0, column.places)} to ${show(cell.hi ?? 0, column.places)}</small>` : cell.sd !== undefined ? `<small>± ${show(cell.sd, column.places)}</small>` : "";
    return text + culteval.effect(cell, column)
      + (cell.collapsed ? `<abbr title="${cell.collapsed} runs with collapsed answers">*</abbr>` : "") + range
      + (cell.of ? `<small>${cell.better || 0}/${cell.of} improve</small>` : "")
      + (cell.why && !partial ? `<abbr title="${esc(cell.why)}">†</abbr>` : "")
      + (partial ? `<small class="partial">${cell.in.length} of ${column.countries.length} countries</small>` : "");
  };

  culteval.about = (kind, name) => `about.html#${new URLSearchParams({ [kind]: name })}`;
  culteval.boardLink = (task, more) => `board.html#${new URLSearchParams({ task, ...more })}`;
})();
