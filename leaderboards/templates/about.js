// One model or aligner: what it is, where it helps and where it costs, over all countries of the board.
"use strict";
(() => {
  const { esc, show, size, state, cell, about, boardLink } = culteval;
  const { table } = culteval.overview, cards = culteval.cards;
  const $ = (id) => document.getElementById(id);
  const kind = state.model ? "model" : "aligner", other = kind === "model" ? "aligner" : "model";
  const name = state[kind];
  const own = table.rows.filter((r) => r.cost && r[kind] === name);
  addEventListener("hashchange", () => location.reload());
  if (!own.length) { $("empty").hidden = false; return; }
  $("content").hidden = false;
  document.title = `${name} - culteval leaderboard`;
  $("title").textContent = name;

  const prose = (text) => esc(text).replace(/&#96;(.*?)&#96;/g, "<code>$1</code>");
  const facts = (pairs) => {
    $("facts").innerHTML = pairs.map(([term, text]) => `<div><dt>${esc(term)}</dt><dd>${prose(text)}</dd></div>`).join("");
  };
  if (kind === "aligner") {
    const card = Object.hasOwn(cards.aligners, name) ? cards.aligners[name] : null;
    $("lead").textContent = card ? card.summary : "An aligner that is not part of culteval.";
    $("what").innerHTML = prose(card ? card.text : "There is no method card of it here.");
    facts(card ? Object.entries(card.rows) : []);
  } else {
    const model = Object.hasOwn(cards.models, name) ? cards.models[name] : null;
    $("lead").textContent = `Model, ${model.submissions} submissions`;
    $("what").hidden = true;
    facts([["parameters", size(model.size)], ["revisions", model.revisions.join(", ")], ["forward pass", model.forward.join(", ")],
      ["aligners", [...new Set(own.map((r) => r.aligner))].join(", ")]]);
  }

  const title = (r) => `${r[other]}${r.detail ? `, ${r.detail}` : ""}`;
  const line = (r, c, one) => `<li><b>${esc(title(r))}</b>, <a href="${esc(boardLink(c.task, { aligner: r.aligner }))}">${esc(c.title)}</a>: ${show(one.v, c.places)}`
    + ` (${one.basis === "seeds" ? "seeds " : ""}${show(one.lo ?? 0, c.places)} to ${show(one.hi ?? 0, c.places)}), unaligned ${show(one.bare, c.places)}, ${one.in.length} ${one.in.length === 1 ? "country" : "countries"}</li>`;
  for (const effect of ["helps", "costs"]) {
    const lines = own.flatMap((r) => table.columns.map((c, i) => (r.cells[i].effect === effect ? line(r, c, r.cells[i]) : "")).filter(Boolean));
    $(effect).innerHTML = lines.join("") || `<li>Nowhere beyond its range.</li>`;
  }
  $("helps-note").textContent = "Whole range better than the unaligned model in the same countries, by more than two standard deviations over random prefixes; a point estimate is listed in neither section.";
  $("spent").textContent = `A run of it spends, on average: ${own.map((r) => `${title(r)}: ${show(r.cost[0], 0)} survey evaluations, ${show(r.cost[1], 0)} s, ${show(r.cost[2], 0)} tokens`).join("; ")}.`;
  $("table").innerHTML = `<caption class="hidden">${esc(name)}</caption><thead><tr><th scope="col">${esc(other === "model" ? "Model" : "Aligner")}</th>${table.columns.map((c) => `<th scope="col" class="number" title="${esc(c.about)}">${esc(c.title)}</th>`).join("")}</tr></thead>`
    + `<tbody>${own.map((r) => `<tr><th scope="row"><a href="${esc(about(other, r[other]))}">${esc(r[other])}</a>${r.detail ? `<small>${esc(r.detail)}</small>` : ""}</th>`
      + table.columns.map((c, i) => `<td class="number">${cell(r.cells[i], c, boardLink(c.task, { aligner: r.aligner }))}</td>`).join("") + "</tr>").join("")}</tbody>`;
})();
