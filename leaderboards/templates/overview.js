// The overview: a row for each model and aligner, a column for each task; other sets of countries and seeds are loaded when asked for.
"use strict";
(() => {
  const { esc, show, mark, state, options, load, cell, explain, about, boardLink } = culteval;
  const data = culteval.overview;
  const $ = (id) => document.getElementById(id);
  const NARROW = matchMedia("(max-width: 640px)");
  const MOST_POINTS = 24;
  const FILTERS = { model: (r) => r.model, aligner: (r) => r.aligner };
  const unique = (values) => [...new Set(values)];
  const tables = [data.table], seeds = []; // by set of countries
  let scope = 0, found = data.table, table = null;

  const filtered = (r) => Object.entries(FILTERS).every(([id, of]) => !$(id).value || (r.cost && of(r) === $(id).value));
  const main = () => Number($("task").value);
  const single = () => (data.scopes[scope][0].length === 1 ? { country: data.scopes[scope][0][0] } : {});
  const whole = (r, i) => r.cells[i].v !== null && (r.cells[i].rank !== undefined || !r.cost);
  const place = (c) => (c.rank === undefined ? "–" : c.basis ? `${c.rank}` : `(${c.rank})`);

  function name(r, at) {
    if (!r.cost) return `<span class="base">${esc(r.aligner)}</span>${r.model ? `<small>${esc(r.model)}</small>` : ""}`;
    return `<button type="button" class="fold" aria-expanded="false" aria-label="Seeds of ${esc(r.aligner)}, ${esc(r.model)}" data-row="${at}">▸</button>`
      + `<a href="${esc(about("aligner", r.aligner))}">${esc(r.aligner)}</a>`
      + `<small><a href="${esc(about("model", r.model))}">${esc(r.model)}</a> <span>${r.runs === 1 ? "1 run" : `${r.runs} runs`}</span></small>${r.detail ? `<small class="detail">${esc(r.detail)}</small>` : ""}`
      + `<span class="inline"><small>${show(r.cost[0], 0)} evaluations, ${show(r.cost[1], 0)} s</small>${r.marks.filter((m) => m !== "self-reported").map(mark).join(" ")}</span>`;
  }

  function columnsOf() {
    const chosen = main();
    const numeric = (title, why, value, text, more = {}) => ({
      title, why, className: "number", type: "figure", data: null,
      render: (_, type, r) => (type === "display" ? text(r) : value(r) ?? ""), ...more,
    });
    const pools = (c) => (c.countries.length === 1 ? data.countries[c.countries[0]] || c.countries[0] : `${c.countries.length} countries`);
    const task = (c, i) => numeric(`${esc(c.title)}<small>${esc(pools(c))}</small>`, `${c.about}; ${c.higher ? "higher" : "lower"} is better; ${c.countries.length} countries: ${c.countries.join(", ")}`,
      (r) => (whole(r, i) ? r.cells[i].v : null),
      (r) => cell(r.cells[i], c, r.cost ? boardLink(c.task, { ...single(), aligner: r.aligner }) : null),
      { text: c.title + pools(c), className: i === chosen ? "number main" : "number", phone: i === chosen, orderSequence: c.higher ? ["desc", "asc"] : ["asc", "desc"] });
    const cost = (r) => `${show(r.cost[0], 0)}<small>${show(r.cost[1], 0)} s</small><small>${show(r.cost[2], 0)} tokens</small>`;
    return [
      numeric(...data.terms.rank, (r) => r.cells[chosen].rank,
        (r) => `<span class="rank${r.cells[chosen].basis ? "" : " unsure"}">${r.cost ? place(r.cells[chosen]) : ""}</span>`, { phone: true, orderSequence: ["asc", "desc"] }),
      { title: "Aligner and model", why: "the method and the model that it aligned; both lead to their pages", data: null, phone: true,
        render: (_, type, r) => (type === "display" ? name(r, found.rows.indexOf(r)) : `${r.aligner} ${r.model} ${r.detail}`) },
      ...found.columns.map(task),
      numeric("Cost", `mean of a run: ${["evaluations", "seconds", "tokens"].map((key) => data.terms[key][1]).join("; ")}`,
        (r) => r.cost?.[0], (r) => (r.cost ? cost(r) : ""), { orderSequence: ["asc", "desc"] }),
      { title: data.terms.marks[0], why: data.terms.marks[1], data: null,
        render: (_, type, r) => (r.cost ? (type === "display" ? r.marks.map(mark).join(" ") : r.marks.join(" ")) : type === "display" ? '<span class="mark base">baseline</span>' : "baseline") },
    ];
  }

  function draw() {
    const columns = columnsOf(), at = 2 + main();
    if (table) { table.destroy(); $("table").replaceChildren($("caption")); }
    $("caption").textContent = `Overview, ${data.scopes[scope][1]}; ranked by ${found.columns[main()].title}`;
    table = new DataTable("#table", {
      data: found.rows, columns: columns.map(({ why, phone, text, ...c }) => ({ ...c, visible: !NARROW.matches || !!phone })),
      order: [[at, columns[at].orderSequence[0]]], deferRender: true, autoWidth: false, pageLength: 50, processing: false,
      layout: { topStart: null, topEnd: null, bottomStart: found.rows.length > 50 ? "info" : null, bottomEnd: found.rows.length > 50 ? { paging: { firstLast: false } } : null },
      language: { zeroRecords: "No rows match these filters.", emptyTable: "No submissions in these countries.", info: "_START_ to _END_ of _TOTAL_", infoEmpty: "", infoFiltered: "(of _MAX_)", paginate: { previous: "Back", next: "Next" } },
      createdRow: (tr, r) => { if (!r.cost) tr.className = "baseline"; },
      headerCallback: (thead) => thead.querySelectorAll("th").forEach((th) => {
        const c = columns.find((one) => (one.text ?? one.title) === th.textContent.trim());
        if (c) th.title = c.why;
      }),
    });
    table.search.fixed("filters", (_, r) => filtered(r));
    table.draw();
    legend(columns);
    answer();
    drawMap();
  }

  // One sentence: the best row of the chosen column, its range, whether beyond chance, its cost.
  function answer() {
    const i = main(), c = found.columns[i];
    const rows = found.rows.filter((r) => r.cost && filtered(r) && r.cells[i].rank !== undefined);
    const best = rows.filter((r) => r.cells[i].rank === Math.min(...rows.map((one) => one.cells[i].rank)));
    if (!best.length) { $("answer").textContent = "No row has a rank with these filters."; return; }
    const top = best.reduce((a, b) => ((c.higher ? b.cells[i].v > a.cells[i].v : b.cells[i].v < a.cells[i].v) ? b : a)), one = top.cells[i];
    const tied = best.length > 1 ? ` ${best.length - 1} other ${best.length === 2 ? "row shares" : "rows share"} its rank.` : "";
    const chance = one.of ? ` ${one.better || 0} of ${one.of} runs are better than every baseline and random prefixes.` : "";
    const base = one.bare !== undefined ? `, unaligned ${show(one.bare, c.places)}` : "";
    $("answer").textContent = `Best by ${c.title}: ${top.aligner} on ${top.model}, ${show(one.v, c.places)}`
      + `${one.basis ? ` (${one.basis === "seeds" ? "seeds " : ""}${show(one.lo ?? 0, c.places)} to ${show(one.hi ?? 0, c.places)})` : " (point estimate)"}${base}, `
      + `over ${one.in.length === 1 ? data.countries[one.in[0]] : `${one.in.length} countries`}.${chance}${tied} Cost of a run: ${show(top.cost[0], 0)} survey evaluations, ${show(top.cost[1], 0)} s.`;
  }

  function legend(columns) {
    const term = (html, text) => `<div><dt>${html}</dt><dd>${esc(text)}</dd></div>`;
    const used = unique(found.rows.flatMap((r) => r.marks || []));
    $("legend").innerHTML = columns.map((c) => term(c.title, c.why)).join("")
      + term('<span class="helps">▲</span> <span class="costs">▼</span>', "whole range better or worse than the unaligned model in the same countries, by more than two standard deviations over random prefixes")
      + term("n/m improve", `n of m runs: ${data.marks.improvement}`) + used.map((one) => term(mark(one), data.marks[one])).join("");
    const cautions = found.columns.flatMap((c) => c.cautions.map((text) => `${c.task}: ${text}`));
    const reasons = found.rows.filter((r) => r.cost).flatMap((r) => unique(r.cells.map((one) => one.why).filter(Boolean)).map((why) => `${r.aligner}, ${r.model}: ${why}`));
    $("notes").replaceChildren(...[...unique(cautions), ...reasons.slice(0, 40)].map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  }

  // The seeds of a row, each with its values and a link to each submission.
  function unfold(button) {
    const tr = button.closest("tr"), row = table.row(tr), r = row.data(), at = found.rows.indexOf(r);
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    button.textContent = open ? "▸" : "▾";
    if (open) { row.child.hide(); return; }
    const ready = seeds[scope] ? Promise.resolve() : load(`data/seeds-${scope}.js`).then(() => { seeds[scope] = culteval.seeds; });
    const here = scope;
    ready.then(() => { if (here === scope && button.isConnected) row.child(folded(r, seeds[here][at]), "folded").show(); });
  }

  function folded(r, list) {
    const task = found.columns[main()].task;
    const head = ["Seed", ...found.columns.map((c) => c.title), "Submissions"].map((text, i, all) => `<th scope="col"${i && i < all.length - 1 ? ' class="number"' : ""}>${esc(text)}</th>`).join("");
    const links = (s) => s.submissions.map(([code, id]) => `<a href="submission.html#${encodeURIComponent(id)}" title="${esc(id)}">${esc(code)}</a>`).join(" ");
    const body = list.map((s) => `<tr><th scope="row">${esc(s.seed)}</th>${s.cells.map((one, i) => `<td class="number">${cell(one, found.columns[i])}</td>`).join("")}<td>${links(s)}</td></tr>`).join("");
    const countries = r.countries.map((code) => `<a href="${esc(boardLink(task, { country: code, aligner: r.aligner }))}">${esc(data.countries[code] || code)}</a>`).join(", ");
    return `<div class="board" role="region" aria-label="Seeds of ${esc(r.aligner)}, ${esc(r.model)}" tabindex="0"><table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>`
      + `<p class="note">Board of ${esc(task)} by country: ${countries}</p>`;
  }

  // The points of the rows that pass the filters, in the order of the ranks; arrows lead from the unaligned model.
  const hiddenZones = new Set();
  function drawMap() {
    const rows = found.rows.filter((r) => r.points && filtered(r));
    const edition = rows[0]?.points[0][1], map = data.maps[edition];
    $("map").hidden = !map;
    $("beside").classList.toggle("wide", !!map);
    if (!map) return;
    const models = unique(rows.map((r) => r.model)), taken = new Set(), marks = [];
    let left = 0;
    for (const r of [...rows].sort((a, b) => (a.aligner === "naive" ? 0 : 1) - (b.aligner === "naive" ? 0 : 1))) {
      for (const [code, , s, x, es, ex, s0, x0] of r.points) {
        const bare = r.aligner === "naive", key = bare ? `${r.model} ${s} ${x}` : `${r.model} ${r.aligner} ${r.detail} ${code}`;
        if (taken.has(key)) continue;
        if (marks.length >= MOST_POINTS) { left += 1; continue; }
        taken.add(key);
        const label = `${bare ? "unaligned" : `${r.aligner} → ${code}`}${models.length > 1 ? `, ${r.model}` : ""}`;
        marks.push({ name: label, kind: bare ? "bare" : "aligned", at: [s, x], error: [es, ex], from: bare || s0 === null ? null : [s0, x0],
          lines: [label, ...(r.detail ? [r.detail] : []), `secular ${show(s, 2)} ± ${show(es, 2)}, self-expression ${show(x, 2)} ± ${show(ex, 2)}`, bare ? "unaligned" : `aligned to ${data.countries[code] || code}, mean over seeds`] });
      }
    }
    marks.push({ name: map.world.name, kind: "null", at: map.world.at, error: [0, 0], from: null, lines: [map.world.name] });
    $("map-note").textContent = `Rows that pass the filters, mean over seeds; hollow: the unaligned model, from which arrows lead to the aligned one; cross: mean of all countries. `
      + `Ellipses: 95 % region of personas and projection; ${map.note}.${left ? ` ${left} more points are not drawn: choose a model, an aligner or a country.` : ""}`;
    culteval.mapLegend($("map"), map.zones, hiddenZones, drawMap);
    culteval.drawMap($("map"), map, marks, hiddenZones, single().country);
  }

  function chooseScope(at) {
    scope = at;
    state.countries = at ? data.scopes[at][0].join("-") : "";
    const ready = tables[at] ? Promise.resolve() : load(`data/scope-${at}.js`).then(() => { tables[at] = culteval.scope; });
    ready.then(() => {
      if (at !== scope) return;
      found = tables[at];
      const titles = found.columns.map((c) => c.title), wanted = titles.indexOf(state.task);
      options("task", titles.map((_, i) => String(i)), String(wanted < 0 ? found.main : wanted), (i) => titles[i]);
      draw();
    });
  }

  if (!data.table.columns.length) {
    $("filters").hidden = $("beside").hidden = true;
    document.querySelector(".legend").hidden = true;
    $("empty").hidden = false;
    return;
  }
  for (const [id, of] of Object.entries(FILTERS)) {
    const values = unique(data.table.rows.filter((r) => r.cost).map(of)).sort();
    options(id, ["", ...values], values.includes(state[id]) ? state[id] : "", (v) => v || "all");
    $(id).addEventListener("change", () => { state[id] = $(id).value; table.draw(); answer(); drawMap(); });
  }
  const asked = Math.max(0, data.scopes.findIndex(([codes]) => codes.join("-") === state.countries));
  options("country", data.scopes.map((_, i) => String(i)), String(asked), (i) => data.scopes[i][1]);
  $("country").addEventListener("change", () => chooseScope(Number($("country").value)));
  $("task").addEventListener("change", () => { state.task = found.columns[main()].title; draw(); });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("table").addEventListener("click", (event) => { const button = event.target.closest("button.fold"); if (button) unfold(button); });
  for (const kind of ["focusin", "pointerover"]) { // what a value pools, for the keyboard too
    $("table").addEventListener(kind, (event) => { $("pooled").textContent = event.target.closest("tbody [title]")?.title ?? ""; });
  }
  NARROW.addEventListener("change", draw);
  chooseScope(asked);
  culteval.table = () => table;
})();
