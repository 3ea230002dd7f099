// The board: one task and country at a time, rows drawn by DataTables.
"use strict";
(() => {
  const { esc, show, size, mark, marks, place, state, options } = culteval;
  const data = culteval.boards;
  const $ = (id) => document.getElementById(id);
  const BUDGETS = [["none", 0], ["up to 10", 10], ["up to 100", 100], ["up to 1,000", 1000], ["more than 1,000", Infinity]];
  const SIZES = [["up to 500M", 5e8], ["up to 2B", 2e9], ["up to 10B", 1e10], ["more than 10B", Infinity]];
  const classOf = (classes, amount) => classes.find(([, most]) => amount <= most)[0];
  const FILTERS = { // values of the filters, and the order of choices if not alphabetic
    model: [(s) => s.model],
    size: [(s) => (s.size === null ? "unknown" : classOf(SIZES, s.size)), [...SIZES.map(([name]) => name), "unknown"]],
    aligner: [(s) => s.aligner],
    budget: [(s) => classOf(BUDGETS, s.evaluations), BUDGETS.map(([name]) => name)],
  };
  const NARROW = matchMedia("(max-width: 640px)");
  let table = null, board = null, shown = null;

  const unique = (values) => [...new Set(values)];
  const boardsOf = (task) => data.boards.map((b, i) => [b, i]).filter(([b]) => b.task === task);

  function chooseTask(task) {
    const tasks = unique(data.boards.map((b) => b.task));
    if (!tasks.includes(task)) task = tasks[0];
    options("task", tasks, task, (t) => (data.suite.tasks.includes(t) ? t : `${t} (not in the suite)`));
    const candidates = boardsOf(task);
    const index = Number(state.board || NaN);
    const fullest = candidates.reduce((best, one) => (one[0].inSuite >= best[0].inSuite && one[0].rows.length > best[0].rows.length ? one : best));
    const found = candidates.find(([, i]) => i === index) || candidates.find(([b]) => b.country === state.country) || fullest;
    const twice = (b) => candidates.filter(([other]) => other.country === b.country).length > 1;
    options("country", candidates.map(([, i]) => String(i)), String(found[1]),
      (i) => data.boards[i].countryName + (twice(data.boards[i]) ? `, ${data.boards[i].variant}` : ""));
    chooseBoard(found[1]);
  }

  function chooseBoard(index) {
    board = data.boards[index];
    shown = null;
    state.task = board.task;
    state.country = board.country;
    state.board = boardsOf(board.task).filter(([b]) => b.country === board.country).length > 1 ? String(index) : "";
    const pick = (wanted, known, usual) => (known.includes(wanted) ? wanted : usual);
    options("scoring", board.scorings, pick(state.scoring, board.scorings, board.headline[1]), (r) => r.replace("_", ", "));
    options("split", board.splits, pick(state.split, board.splits, "heldout"), (s) => ({ heldout: "held out", fit: "fitted" })[s] || s);
    const members = board.rows.map((row) => data.submissions[row.s]);
    for (const [id, values] of [
      ...Object.entries(FILTERS).map(([id, [of, order]]) => {
        const there = unique(members.map(of));
        return [id, order ? order.filter((name) => there.includes(name)) : there.sort()];
      }),
      ["mark", ["verified", "improvement"]],
    ]) {
      const names = { mark: { "": "all", verified: "verified only", improvement: "improvements only" } }[id] || { "": "all" };
      options(id, ["", ...values], pick(state[id], values, ""), (v) => names[v] ?? v);
    }
    const [title, more] = board.title.split(/ \((.*)\)/);
    $("title").textContent = `${title}: ${board.countryName}`;
    $("construct").textContent = `${more ? `${more[0].toUpperCase()}${more.slice(1)}. ` : ""}${board.construct}`;
    $("caution").hidden = !board.caution;
    $("caution").textContent = board.caution ? `Note: ${board.caution}.` : "";
    draw();
  }

  const at = (metric, scoring, split) => board.places.findIndex((p) => p[0] === metric && p[1] === scoring && p[2] === split);

  function rowsOf() {
    const baselines = board.baselines.map((row) => ({ row, name: row.name }));
    return [...board.rows.map((row) => ({ row, submission: data.submissions[row.s] })), ...baselines];
  }

  // The places of the chosen answer scoring and split, the ranking metric first.
  function placesShown() {
    const scoring = $("scoring").value, split = $("split").value;
    return board.places.map((p, i) => [p, i]).filter(([p]) => p[1] === scoring && p[2] === split);
  }

  // The bounds of a value: its interval; for the headline, and for skill (the headline rescaled), the range over seeds.
  function boundsOf(row, index) {
    if (row.ci[index]) return row.ci[index];
    if (row.sd?.[index]) return [row.v[index] - row.sd[index], row.v[index] + row.sd[index]];
    if (!row.bounds) return null;
    const headline = at(...board.headline);
    if (index === headline) return row.bounds;
    if (board.places[index].slice(0, 3).join() !== ["skill", ...board.headline.slice(1)].join()) return null;
    const constant = board.baselines.find((r) => r.name === "constant")?.v[headline];
    return constant ? [1 - row.bounds[1] / constant, 1 - row.bounds[0] / constant] : null;
  }

  function whiskers(index) {
    const rows = rowsOf();
    const values = rows.flatMap(({ row }) => [row.v[index], ...(boundsOf(row, index) || [])]).filter((v) => v !== null).sort((a, b) => a - b);
    if (values.length < 2) return null;
    const at5 = values[Math.floor(0.03 * (values.length - 1))], top = values[values.length - 1];
    const low = board.places[index][3] === false ? values[0] : at5;
    const high = board.places[index][3] === false ? values[Math.ceil(0.97 * (values.length - 1))] : top;
    const pad = (high - low || 1) * 0.04;
    const x = (v) => 4 + 132 * Math.min(1, Math.max(0, (v - low + pad) / (high - low + 2 * pad)));
    const better = board.places[index][3] === false ? -1 : 1;
    const nulls = board.baselines.filter((row) => !row.ceiling).map((row) => row.v[index]).filter((v) => v !== null);
    const line = nulls.length ? x(nulls.reduce((a, b) => (better * b > better * a ? b : a))) : null;
    return (row) => {
      const value = row.v[index];
      if (value === null) return "";
      const bounds = boundsOf(row, index);
      const seeds = !row.ci[index] && bounds;
      return `<svg class="whisker${row.s === undefined ? " baseline" : ""}" viewBox="0 0 140 18" width="140" height="18" aria-hidden="true">`
        + (line === null ? "" : `<line class="null" x1="${line}" x2="${line}" y1="0" y2="18"/>`)
        + (bounds ? `<line class="${seeds ? "seeds" : "ci"}" x1="${x(bounds[0])}" x2="${x(bounds[1])}" y1="9" y2="9"/>` : "")
        + `<circle cx="${x(value)}" cy="9" r="4"/></svg>`;
    };
  }

  function columnsOf() {
    const places = placesShown();
    const noise = places.length ? places[0][1] : at(...board.headline);
    const draw = places.length ? whiskers(noise) : null;
    const about = (name) => data.columns[name];
    const numeric = (name, title, about, value, text, extra = {}) => ({
      name, title, about, className: "number", type: "figure", data: null,
      render: (_, type, r) => {
        if (type === "display") return text(r);
        return value(r) ?? "";
      }, ...extra,
    });
    const words = (name, title, about, text, extra = {}) => ({
      name, title, about, data: null, render: (_, type, r) => (type === "display" ? esc(text(r)) : text(r)), ...extra,
    });
    const of = (r, field) => (r.submission ? r.submission[field] : null);
    const value = ([p, i], k) => numeric(`m:${p[0]}`, data.metrics[p[0]][0],
      `${data.metrics[p[0]][1]}${p[3] === true ? "; higher is better" : p[3] === false ? "; lower is better" : ""}`,
      (r) => r.row.v[i],
      (r) => {
        const range = k === 0 ? boundsOf(r.row, i) : r.row.ci[i];
        const places = data.metrics[p[0]][2];
        return `${show(r.row.v[i], places)}${r.row.notes[i] === "collapsed" ? '<abbr title="collapsed">*</abbr>' : ""}`
          + (range ? `<small>${r.row.ci[i] ? "" : r.submission ? "seeds " : "± 1 sd "}${show(range[0], places)} to ${show(range[1], places)}</small>` : "");
      },
      { className: k === 0 ? "number main" : "number", off: k > 0 && !board.usual.includes(p[0]), phone: k === 0,
        orderSequence: p[3] === false ? ["asc", "desc"] : ["desc", "asc"] });
    return [
      numeric("rank", ...about("rank"),
        (r) => r.row.rank, (r) => `<span class="rank${r.row.basis ? "" : " unsure"}">${place(r.row)}</span>`, { phone: true, orderSequence: ["asc", "desc"] }),
      { name: "name", title: about("name")[0], about: about("name")[1], data: null, phone: true,
        render: (_, type, r) => {
          if (!r.submission) return type === "display" ? `<span class="base">${esc(r.name)}</span>${r.row.note ? `<small>${esc(r.row.note)}</small>` : ""}` : r.name;
          const s = r.submission;
          if (type !== "display") return `${s.aligner} ${s.seed} ${s.name}`;
          return `<a href="submission.html#${encodeURIComponent(s.name)}">${esc(s.aligner)} <span class="seed">seed ${esc(s.seed)}</span></a><small>${esc(s.name)}</small>`
            + `<span class="inline">${marks(s, r.row, r.row.notes[noise] === "collapsed").filter((m) => m !== "self-reported").map(mark).join(" ")}</span>`;
        } },
      words("model", ...about("model"), (r) => of(r, "model") ?? "–", { className: "model" }),
      numeric("size", ...about("size"), (r) => of(r, "size"), (r) => size(of(r, "size"))),
      ...(places.length ? [value(places[0], 0)] : []),
      { name: "noise", title: about("noise")[0], orderable: false, data: null, phone: false,
        about: about("noise")[1],
        render: (_, type, r) => (type === "display" && draw ? draw(r.row) : "") },
      ...places.slice(1).map((p, k) => value(p, k + 1)),
      words("fitted", ...about("fitted"), (r) => of(r, "fitted") ?? "–", { off: true }),
      numeric("budget", ...about("evaluations"), (r) => of(r, "evaluations"), (r) => show(of(r, "evaluations"), 0)),
      numeric("seconds", ...about("seconds"), (r) => of(r, "seconds"), (r) => show(of(r, "seconds"), 0), { off: true }),
      numeric("tokens", ...about("tokens"), (r) => of(r, "tokens"), (r) => show(of(r, "tokens"), 0), { off: true }),
      { name: "marks", title: about("marks")[0], about: about("marks")[1], data: null,
        render: (_, type, r) => {
          if (!r.submission) return type === "display" ? '<span class="mark base">baseline</span>' : "baseline";
          const names = marks(r.submission, r.row, r.row.notes[noise] === "collapsed");
          return type === "display" ? names.map(mark).join(" ") : names.join(" ");
        } },
    ];
  }

  function draw() {
    const columns = columnsOf();
    const before = shown;
    const isOn = (c) => (before && c.name in before ? before[c.name] : NARROW.matches ? !!c.phone : !c.off);
    shown = Object.fromEntries(columns.map((c) => [c.name, isOn(c)]));
    if (table) { table.destroy(); $("table").replaceChildren($("caption")); }
    $("caption").textContent = `${board.title}, ${board.countryName}; ${$("scoring").value}, ${$("split").value}`;
    const main = columns.findIndex((c) => (c.className || "").includes("main"));
    const direction = main < 0 ? "asc" : columns[main].orderSequence[0];
    table = new DataTable("#table", {
      data: rowsOf(),
      columns: columns.map(({ about, off, phone, ...c }) => ({ ...c, visible: shown[c.name] })),
      order: [[main < 0 ? 0 : main, direction]],
      orderMulti: true, deferRender: true, autoWidth: false, pageLength: 50, processing: false,
      layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: { paging: { firstLast: false } } },
      language: { zeroRecords: "No rows match these filters.", emptyTable: "No submissions yet.", info: "_START_ to _END_ of _TOTAL_", infoEmpty: "", infoFiltered: "(of _MAX_)",
        paginate: { previous: "Back", next: "Next" } },
      createdRow: (tr, r) => { if (!r.submission) tr.className = "baseline"; },
      headerCallback: (thead) => thead.querySelectorAll("th").forEach((th) => {
        const c = columns.find((one) => one.title === th.textContent.trim());
        if (c) th.title = c.about;
      }),
    });
    table.search.fixed("filters", (_, r) => passes(r));
    table.search($("search").value).draw();
    chooser(columns);
    legend(columns);
  }

  function passes(r) {
    const wanted = (id) => $(id).value, chosen = Object.entries(FILTERS).filter(([id]) => wanted(id));
    if (!r.submission) return !chosen.length && wanted("mark") !== "verified";
    return chosen.every(([id, [of]]) => of(r.submission) === wanted(id))
      && (wanted("mark") !== "verified" || r.submission.verified)
      && (wanted("mark") !== "improvement" || r.row.improvement === true);
  }

  function chooser(columns) {
    const box = $("columns").querySelector("fieldset");
    box.replaceChildren(box.querySelector("legend"), ...columns.map((c, i) => {
      const label = document.createElement("label"), input = document.createElement("input");
      input.type = "checkbox";
      input.checked = shown[c.name];
      input.addEventListener("change", () => { shown[c.name] = input.checked; table.column(i).visible(input.checked); table.draw(false); legend(columns); });
      label.append(input, c.title);
      return label;
    }));
  }

  function legend(columns) {
    const term = (html, text) => `<div><dt>${html}</dt><dd>${esc(text)}</dd></div>`;
    const usedMarks = unique(board.rows.flatMap((r) => marks(data.submissions[r.s], r, Object.values(r.notes).includes("collapsed"))));
    $("legend").innerHTML = columns.filter((c) => shown[c.name] && c.name !== "marks").map((c) => term(esc(c.title), c.about)).join("")
      + term(esc($("scoring").value.replace("_", ", ")), data.scorings[$("scoring").value] || "")
      + term(esc(({ heldout: "held out", fit: "fitted" })[$("split").value] || $("split").value), data.splits[$("split").value] || "")
      + usedMarks.map((name) => term(mark(name), data.marks[name])).join("");
    const [metric, scoring] = board.headline;
    const decides = at("skill", scoring, "heldout") >= 0 ? "skill" : data.metrics[metric][0];
    $("ranking").textContent = `Ranked by held-out ${decides}, answer scoring ${scoring}, independent of the selection; `
      + (board.inSuite ? `task and protocol of suite ${data.suite.version}.` : "not a board of the suite: another task, edition or protocol.")
      + " There is no mean over tasks.";
    $("notes").replaceChildren(...board.notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
    $("reported").hidden = !board.reported.length;
    $("reported-list").innerHTML = board.reported.map((r) => `<div><dt>${esc(r.metric)}</dt><dd>${esc(r.figures)}<br>${esc(r.mark)}. ${esc(r.source)}</dd></div>`).join("");
    sets();
    drawMap();
    $("source").textContent = `${board.citation} Data: ${board.licence}. Variant: ${board.variant}. Task hash ${board.hash.slice(0, 12)}.`;
  }

  // The cultural map of the rows that pass the filters, for tasks that have one.
  const hiddenZones = new Set();
  function drawMap() {
    const map = data.maps?.[board.edition], scoring = $("scoring").value, split = $("split").value;
    const columns = ["traditional_secular", "survival_selfexpression", "projection_error", "distance"].map((m) => at(m, scoring, split));
    $("map").hidden = !map || columns.includes(-1);
    if ($("map").hidden) return;
    const rows = rowsOf().filter((r, i) => (r.submission ? i < 40 && passes(r) : r.row.sd && Object.keys(r.row.sd).length) && columns.every((i) => r.row.v[i] !== null));
    const models = unique(rows.map((r) => r.submission?.model).filter(Boolean));
    const point = ({ row }) => columns.slice(0, 2).map((i) => row.v[i]);
    const bare = (r) => r.submission?.aligner === "naive";
    const start = (r) => rows.find((other) => bare(other) && other.submission.model === r.submission?.model && other.submission.dtype === r.submission?.dtype);
    const marks = rows.map((r) => {
      const name = !r.submission ? r.name : `${bare(r) ? "unaligned" : `${r.submission.aligner} s${r.submission.seed}`}${models.length > 1 ? `, ${r.submission.model}` : ""}`;
      const error = columns.slice(0, 2).map((i) => Math.hypot(r.row.v[columns[2]], r.row.ci[i] ? (r.row.ci[i][1] - r.row.ci[i][0]) / 2 / 1.96 : 0));
      const [secular, expression] = point(r);
      const near = [...map.countries].sort((a, b) => Math.hypot(a[3] - secular, a[4] - expression) - Math.hypot(b[3] - secular, b[4] - expression)).slice(0, 3);
      const lines = [name, `secular ${show(secular, 2)} ± ${show(error[0], 2)}, self-expression ${show(expression, 2)} ± ${show(error[1], 2)}`,
        `distance to ${board.countryName} ${show(r.row.v[columns[3]], 2)}`, `nearest: ${near.map((c) => c[1]).join(", ")}`];
      const kind = r.submission ? (bare(r) ? "bare" : "aligned") : "null";
      return { name, kind, at: point(r), error, from: kind === "aligned" && start(r) ? point(start(r)) : null, lines };
    });
    marks.push({ name: map.world.name, kind: "null", at: map.world.at, error: [0, 0], from: null, lines: [map.world.name] });
    $("map-note").textContent = `Rows that pass the filters; hollow: the unaligned model, from which arrows lead to the aligned one; `
      + `crosses: mean of all countries, random prefixes. Ellipses: 95 % region of personas and projection; ${map.note}.`;
    culteval.mapLegend($("map"), map.zones, hiddenZones, drawMap);
    culteval.drawMap($("map"), map, marks, hiddenZones, board.country);
  }

  // Aligned sets of the task, for all countries.
  function sets() {
    const taskSets = data.sets.filter((set) => set.task === board.task);
    const cell = (text, i) => (i ? `<td class="number">${esc(text)}</td>` : `<th scope="row">${esc(text)}</th>`);
    $("sets").hidden = !taskSets.length;
    $("sets-list").innerHTML = taskSets.map((set) => (set.rows.length
      ? `<div class="board" role="region" aria-label="${esc(set.title)}" tabindex="0"><table><caption>${esc(set.title)}</caption><thead><tr>`
        + set.headings.map((heading, i) => `<th scope="col"${i ? ' class="number"' : ""}>${esc(heading)}</th>`).join("")
        + `</tr></thead><tbody>${set.rows.map((row) => `<tr>${row.map(cell).join("")}</tr>`).join("")}</tbody></table></div>`
      : `<p class="note">${esc(set.title)}</p>`)
      + `<ul class="note">${set.notes.map((note) => `<li>${esc(note)}</li>`).join("")}</ul>`).join("");
  }

  if (!data.boards.length) {
    $("filters").hidden = $("board").hidden = true;
    document.querySelector(".legend").hidden = true;
    $("empty").hidden = false;
    return;
  }
  $("task").addEventListener("change", () => { state.board = ""; chooseTask($("task").value); });
  $("country").addEventListener("change", () => chooseBoard(Number($("country").value)));
  for (const id of ["scoring", "split"]) $(id).addEventListener("change", () => { state[id] = $(id).value; draw(); });
  for (const id of [...Object.keys(FILTERS), "mark"]) $(id).addEventListener("change", () => { state[id] = $(id).value; table.draw(); drawMap(); });
  $("search").addEventListener("input", () => table.search($("search").value).draw());
  $("more").addEventListener("click", () => $("more").setAttribute("aria-expanded", $("filters").classList.toggle("all")));
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  chooseTask(state.task);
  culteval.table = () => table;
})();
