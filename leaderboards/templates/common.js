// Shared by both pages: data, colours, escaped text, numbers.
"use strict";
var culteval = {};

(() => {
  const NAMES = { auto: "as the system", light: "light", dark: "dark" };
  const stored = () => { try { return localStorage.getItem("culteval-theme") || "auto"; } catch { return "auto"; } };
  let theme = NAMES[stored()] ? stored() : "auto";
  const apply = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[theme];
      button.setAttribute("aria-label", `Colours: ${NAMES[theme]}. Change`);
    }
    document.dispatchEvent(new Event("culteval-theme"));
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      theme = { auto: "dark", dark: "light", light: "auto" }[theme];
      try { localStorage.setItem("culteval-theme", theme); } catch { /* private windows keep nothing */ }
      apply();
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
})();

// Escape text for HTML. All text of submissions passes through here or through textContent.
culteval.esc = (text) => String(text).replace(/[&<>"'`]/g, (c) => `&#${c.charCodeAt(0)};`);

culteval.show = (value, places = 3) => {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
  return value < 0 && /[1-9]/.test(text) ? `\u2212${text}` : text;
};

culteval.size = (n) => (n === null ? "–" : n >= 1e9 ? `${+(n / 1e9).toPrecision(3)}B` : `${Math.round(n / 1e6)}M`);

culteval.colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

culteval.mark = (name) =>
  `<span class="mark ${name.replace(/\W/g, "-")}" title="${culteval.esc((culteval.overview ?? culteval.boards).marks[name])}">${name}</span>`;

// Load a data file, which is a script; pages from disk may not fetch.
culteval.load = (source) => new Promise((done, failed) => {
  const script = document.createElement("script");
  script.src = source;
  script.onload = done;
  script.onerror = failed;
  document.head.append(script);
});

// The part of the address after #, as named values; null in a value removes it.
culteval.state = new Proxy(new URLSearchParams(location.hash.slice(1)), {
  get: (params, name) => params.get(name) ?? "",
  set: (params, name, value) => {
    if (value) params.set(name, value); else params.delete(name);
    history.replaceState(null, "", `#${params}`);
    return true;
  },
});

// The marks of a row: verified or not, whether it is an improvement, whether submitted scores differ from recomputed ones.
culteval.marks = (submission, row, collapsed) => [
  submission.verified ? "verified" : "self-reported",
  ...(row && row.improvement === true ? ["improvement"] : []),
  ...(row && row.improvement === false ? ["no improvement"] : []),
  ...(collapsed ? ["collapsed"] : []),
  ...(submission.differs ? ["scores differ"] : []),
];

culteval.place = (row) => (row.rank === null || row.rank === undefined ? "–" : row.basis ? `${row.rank}` : `(${row.rank})`);

// Fill a select with values.
culteval.options = (id, values, chosen, text = (v) => v) => {
  document.getElementById(id).replaceChildren(...values.map((value) => {
    const option = new Option(text(value), value);
    option.selected = value === chosen;
    return option;
  }));
};
