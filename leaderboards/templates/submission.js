// One submission: rank, dimensions, answers by item, provenance.
"use strict";
(() => {
  const { esc, show, size, mark, marks, place, colour, load } = culteval;
  const data = culteval.boards;
  const $ = (id) => document.getElementById(id);
  const DIMENSIONS = { pdi: "Power distance", idv: "Individualism", mas: "Masculinity", uai: "Uncertainty avoidance", lto: "Long-term orientation", ivr: "Indulgence" };
  const name = decodeURIComponent(location.hash.slice(1));
  const index = data.submissions.findIndex((s) => s.name === name);
  const submission = data.submissions[index];
  let page = null, current = 0, plotly = null, drawn = [];

  if (!submission) { $("empty").hidden = false; return; }
  const boards = data.boards.map((b, i) => ({ b, i, row: b.rows.find((r) => r.s === index) })).filter(({ row }) => row);

  load(`pages/${encodeURIComponent(submission.name)}.js`).then(() => {
    page = culteval.page;
    $("content").hidden = false;
    document.title = `${submission.aligner} seed ${submission.seed} - culteval leaderboard`;
    $("title").textContent = `${submission.aligner}, seed ${submission.seed}`;
    $("lead").textContent = `${submission.model}${submission.size ? `, ${size(submission.size)} parameters` : ""}; fitted to ${submission.fitted}`;
    provenance();
    $("tasks").hidden = boards.length < 2;
    $("tasks").replaceChildren(...boards.map(({ b }, k) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "ghost";
      button.textContent = `${b.task}, ${b.countryName}`;
      button.addEventListener("click", () => choose(k));
      return button;
    }));
    if (boards.length) choose(0);
    else $("standing-title").parentElement.hidden = $("items-title").parentElement.hidden = $("scores-title").parentElement.hidden = true;
  }).catch(() => { $("empty").hidden = false; $("content").hidden = true; });

  function choose(k) {
    current = k;
    [...$("tasks").children].forEach((button, i) => button.setAttribute("aria-pressed", i === k));
    const { b, i, row } = boards[k];
    $("back").href = `board.html#task=${encodeURIComponent(b.task)}&country=${b.country}`;
    $("back").textContent = `Board of ${b.task}, ${b.countryName}`;
    $("marks").innerHTML = marks(submission, row, collapsed(row, b)).map((m) => `${mark(m)} <span class="about">${esc(data.marks[m])}</span>`).join("<br>");
    standing(b, row);
    scores(b);
    drawn = [];
    dimensions(b);
    load(`data/items-${i}.js`).then(() => { if (current === k) items(b, culteval.items); });
  }

  const headlineAt = (b) => b.places.findIndex((p) => p.slice(0, 3).join() === b.headline.join());
  const collapsed = (row, b) => row.notes[headlineAt(b)] === "collapsed";

  function skillBounds(b, bounds, at) {
    const constant = b.baselines.find((r) => r.name === "constant")?.v[at];
    return bounds && constant ? `range over seeds ${show(1 - bounds[1] / constant, 2)} to ${show(1 - bounds[0] / constant, 2)}; ` : "";
  }

  function standing(b, row) {
    const at = headlineAt(b), [metric] = b.headline;
    const [label, about, places] = data.metrics[metric];
    const skill = b.places.findIndex((p) => p[0] === "skill" && p[1] === b.headline[1] && p[2] === "heldout");
    const same = b.rows.filter((r) => r.rank === row.rank).length;
    const bounds = row.bounds;
    const card = (title, value, note) => `<div class="card"><span>${esc(title)}</span><b>${value}</b><small>${esc(note)}</small></div>`;
    const nulls = b.baselines.filter((r) => r.v[at] !== null);
    $("standing").innerHTML = card("Rank", place(row), `of ${b.rows.length}${same > 1 ? `; ${same} rows share it` : ""}${row.basis ? "" : "; point estimate only: neither an interval nor three seeds"}`)
      + (skill >= 0 ? card("Skill, held out", show(row.v[skill], 2), skillBounds(b, bounds, at) + data.metrics.skill[1]) : "")
      + card(`${label}, held out`, show(row.v[at], places),
        bounds ? `${row.basis === "seeds" ? "range over seeds" : "95 % interval"} ${show(bounds[0], places)} to ${show(bounds[1], places)}` : about)
      + nulls.map((r) => card(r.name, show(r.v[at], places), r.note || "a baseline")).join("");
  }

  function scores(b) {
    const rows = page.scores.filter((s) => s[0] === b.task);
    const cells = (s) => `<td>${esc(s[1])}</td><td>${esc(s[3])}</td><td>${esc(s[2])}</td><td class="number">${show(s[4], 4)}</td><td class="number">${s[5] === null ? "–" : `${show(s[5], 4)} to ${show(s[6], 4)}`}</td><td class="number">${s[7]}</td><td>${esc(s[8] ?? "")}</td>`;
    $("scores").innerHTML = `<table><thead><tr><th>Metric</th><th>Split</th><th>answer scoring</th><th class="number">Value</th><th class="number">95 % interval</th><th class="number">n</th><th>Note</th></tr></thead><tbody>${rows.map((s) => `<tr>${cells(s)}</tr>`).join("")}</tbody></table>`;
  }

  // Charts are drawn when they are there to be seen: plotly is loaded once, after the text.
  function draw(id, make) {
    drawn.push([id, make]);
    plotly = plotly || load("assets/plotly.min.js");
    plotly.then(() => {
      const [traces, layout] = make();
      const font = { family: getComputedStyle(document.body).fontFamily, color: colour("ink"), size: 13 };
      Plotly.react($(id), traces, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, margin: { t: 24, r: 24, b: 40, l: 40 }, ...layout },
        { displayModeBar: false, responsive: true, staticPlot: matchMedia("(pointer: coarse)").matches });
    });
  }
  document.addEventListener("culteval-theme", () => { if (page) { const again = drawn; drawn = []; again.forEach(([id, make]) => draw(id, make)); } });

  function dimensions(b) {
    const found = (metric, split) => page.scores.find((s) => s[0] === b.task && s[1] === metric && s[2] === "expected" && s[3] === split)?.[4];
    const known = Object.keys(DIMENSIONS).filter((d) => found(d, "heldout") !== undefined && found(`${d}_error`, "heldout") !== undefined);
    $("dimensions").hidden = known.length < 6;
    if (known.length < 6) return;
    const of = (split) => known.map((d) => found(d, split));
    const target = known.map((d) => found(d, "heldout") - found(`${d}_error`, "heldout"));
    const held = of("heldout"), fit = of("fit");
    $("radar").setAttribute("aria-label", `Radar of six indices against the published ones of ${b.countryName}; the table beside it has the figures.`);
    $("radar-table").innerHTML = `<table class="plain"><thead><tr><th>Dimension</th><th class="number">Published</th><th class="number">Fitted</th><th class="number">Held out</th><th class="number">Error</th></tr></thead><tbody>${known.map((d, i) => `<tr><td>${DIMENSIONS[d]}</td><td class="number">${show(target[i], 0)}</td><td class="number">${show(fit[i], 0)}</td><td class="number"><b>${show(held[i], 0)}</b></td><td class="number">${show(held[i] - target[i], 0)}</td></tr>`).join("")}</tbody></table><p class="note">Answer scoring: expected. Published: edition ${esc(b.edition)}.</p>`;
    draw("radar", () => {
      const ring = (values, label, line, extra) => ({ type: "scatterpolar", r: [...values, values[0]], theta: [...known, known[0]].map((d) => DIMENSIONS[d].replace(/[ -]/, "<br>")), name: label, line, hovertemplate: "%{r:.0f}", ...extra });
      const all = [...target, ...held, ...fit.filter((v) => v !== undefined)];
      const axis = { gridcolor: colour("line"), linecolor: colour("line"), tickfont: { color: colour("muted"), size: 11 } };
      return [[
        ring(target, `published, ${b.countryName}`, { color: colour("ink"), width: 2, dash: "dot" }),
        ...(fit[0] === undefined ? [] : [ring(fit, "fitted", { color: colour("muted"), width: 1.5 })]),
        ring(held, "held out", { color: colour("accent"), width: 2.5 }, { fill: "toself", fillcolor: colour("wash") }),
      ], { polar: { bgcolor: "rgba(0,0,0,0)", radialaxis: { ...axis, range: [Math.min(0, ...all), Math.max(100, ...all)], nticks: 5 }, angularaxis: { ...axis, tickfont: { color: colour("ink"), size: 12 } } },
        legend: { orientation: "h", y: -0.12, x: 0.5, xanchor: "center" }, height: 440, margin: { t: 40, r: 60, b: 50, l: 60 } }];
    });
  }

  const bar = (shares, kind) => `<div class="bar ${kind}" aria-hidden="true">${shares.map((p, i) => `<i class="o${Math.round((8 * i) / Math.max(1, shares.length - 1))}" style="width:${(100 * p).toFixed(1)}%"></i>`).join("")}</div>`;
  const spoken = (shares, options) => shares.map((p, i) => `${options[i]} ${(100 * p).toFixed(0)} %`).join(", ");

  function items(b, asked) {
    const given = page.answers[b.task], held = given.shares.heldout || {}, fit = given.shares.fit || {};
    const people = asked.some((item) => item.people), right = asked.some((item) => item.right);
    const gap = (p, q) => p.reduce((sum, v, i) => sum + Math.abs(v - q[i]), 0) / 2;
    const counted = (item, shares) => { // if the survey used a shorter scale in the country, as in the score
      const sum = shares.map(() => 0);
      shares.forEach((p, i) => { sum[item.as[i]] += p; });
      return sum;
    };
    const rows = asked.filter((item) => held[item.id] || fit[item.id] || given.texts[item.id]).map((item) => {
      const answered = held[item.id] || fit[item.id] || [];
      const modelShares = item.as && answered.length ? counted(item, answered) : answered;
      const far = item.people && modelShares.length ? gap(modelShares, item.people) : item.right && modelShares.length ? 1 - item.right.reduce((sum, at) => sum + modelShares[at], 0) : null;
      return { item, modelShares, far, text: given.texts[item.id] };
    });
    if (people || right) rows.sort((x, y) => (y.far ?? -1) - (x.far ?? -1));
    $("items-note").textContent = rows.length === 0 ? "No answers to show." : people
      ? `Largest distance first. Upper bar: people of ${b.countryName}; lower bar: the model, held out, mean over paraphrases and option orders. Select an item to enlarge it.`
      : right ? "Lowest probability of the right option first. Bars: mean probability of each option, held out; the right option is named." : "Bars: mean probability of each option, held out if available, from the first option to the last.";
    const about = (r) => people ? "Total variation" : right ? "Missed" : "";
    $("items").innerHTML = rows.map((r, k) => `<div class="item"><div class="q"><button type="button" class="link" data-k="${k}">${esc(r.item.text)}</button><small>${esc(r.item.id)}${r.item.right && r.item.options.length ? `; right: ${r.item.right.map((at) => esc(r.item.options[at])).join(", ")}` : ""}</small></div>`
      + `<div class="bars">${r.item.people ? bar(r.item.people, "people") : ""}${r.modelShares.length ? bar(r.modelShares, "model") : ""}${r.text ? `<blockquote>${esc(r.text)}</blockquote>` : ""}<span class="hidden">${r.item.people ? esc(`People: ${spoken(r.item.people, r.item.options)}. `) : ""}${r.modelShares.length ? esc(`Model: ${spoken(r.modelShares, r.item.options)}.`) : ""}</span></div>`
      + `<div class="far">${r.far === null ? "" : `${show(r.far, 2)}<small>${about(r)}</small>`}</div></div>`).join("");
    $("items").querySelectorAll("button").forEach((button) => button.addEventListener("click", () => large(b, rows[Number(button.dataset.k)])));
    const first = rows.find((r) => r.modelShares.length);
    $("chosen").hidden = !first;
    if (first) large(b, first, true);
  }

  function large(b, r, quiet) {
    if (!r.modelShares.length) return;
    const labels = r.item.options.map((text, i) => `${i + 1}. ${text.length > 28 ? `${text.slice(0, 27)}…` : text}`).map(esc);
    const series = (values, label, fill) => ({ type: "bar", x: labels, y: values, name: label, marker: { color: fill }, hovertemplate: "%{y:.0%}" });
    $("chosen").setAttribute("aria-label", `${r.item.text} ${r.item.people ? `People: ${spoken(r.item.people, r.item.options)}. ` : ""}Model: ${spoken(r.modelShares, r.item.options)}.`);
    drawn = drawn.filter(([id]) => id !== "chosen");
    draw("chosen", () => [[
      ...(r.item.people ? [series(r.item.people, `people, ${b.countryName}`, colour("people"))] : []),
      series(r.modelShares, "model, held out", colour("accent")),
    ], { title: { text: esc(r.item.text.length > 90 ? `${r.item.text.slice(0, 89)}…` : r.item.text), font: { size: 14 }, x: 0.02 }, barmode: "group", bargap: 0.35, height: 300, margin: { t: 48, r: 16, b: 70, l: 48 },
      yaxis: { tickformat: ".0%", gridcolor: colour("line"), zerolinecolor: colour("line"), rangemode: "tozero" }, xaxis: { type: "category", automargin: true }, legend: { orientation: "h", y: 1.08, x: 1, xanchor: "right" }, showlegend: Boolean(r.item.people) }]);
    if (!quiet) $("chosen").scrollIntoView({ block: "nearest" });
  }

  function provenance() {
    const m = page.manifest;
    const settings = Object.entries(m.aligner.settings).map(([k, v]) => `${k} = ${Array.isArray(v) ? v.join(", ") : v}`).join("; ");
    const facts = [
      ["Submission", page.name], ["Aligner", m.aligner.name], ["Settings", settings || "its own"], ["Adapter sha256", m.aligner.adapter_sha256 || "no adapter"], ["Seed", m.seed],
      ["Model", m.model.name], ["Revision", m.model.revision], ["Computed in", `${m.model.dtype} on ${m.model.device}, ${m.model.threads} threads, ${m.model.forward}`], ["Chat template", m.model.chat_template || "none"],
      ...(m.model.adapter_sha256 ? [["Adapter of the model", `sha256 ${m.model.adapter_sha256}; not part of the submission; --adapter names its folder`]] : []),
      ...m.tasks.map((t) => [`Task ${t.name}`, `${t.country}, edition ${t.edition ?? "its own"}, hash ${t.hash}`]),
      ["Fitted to", m.fitted ? `${m.fitted.tasks.join(", ")} for ${m.fitted.country}, ${m.fitted.scoring}, ${m.fitted.norm}` : "nothing"],
      ["Budget", `${show(m.budget.survey_evaluations, 0)} survey evaluations (${show(m.budget.item_forwards, 0)} of ${show(m.budget.item_forwards_allowed, 0)} item forwards), ${show(m.budget.tokens, 0)} tokens, ${show(m.budget.seconds, 0)} s`],
      ["Versions", Object.entries(m.versions).map(([k, v]) => `${k} ${v}`).join(", ")], ["Answers", `${show(m.answers.rows, 0)} lines, sha256 ${m.answers.sha256}`],
    ];
    $("facts").innerHTML = facts.map(([k, v]) => `<div><dt>${esc(k)}</dt><dd>${esc(v)}</dd></div>`).join("");
    $("command").textContent = page.command;
    $("typed").textContent = m.command || "nothing";
    const home = `files/${encodeURIComponent(submission.name)}`;
    for (const [id, file] of [["manifest", "manifest.json"], ["answers", page.file]]) Object.assign($(id), { href: `${home}/${file}`, textContent: file });
    $("adapter").innerHTML = page.adapter.map((file) => `<a href="${home}/${esc(file)}" download>${esc(file)}</a>`).join(" ");
    $("copy").addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(page.command); $("copy").textContent = "Copied"; } catch {
        getSelection().selectAllChildren($("command"));
        $("copy").textContent = "Selected";
      }
    });
  }

  addEventListener("hashchange", () => location.reload());
})();
