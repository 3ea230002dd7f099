// The cultural map: countries by zone, rows of the board as marked points, drawn as SVG in the page's own colours.
"use strict";
(() => {
  const W = 1200, H = 860, EDGE = { left: 60, right: 20, top: 16, bottom: 52 };
  const REGION = Math.sqrt(5.991); // 95 % region of two normal deviates, in standard deviations
  const SHAPES = [ // by zone, so that colour is not the only sign
    (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`, (r) => `M${-r},${-r}H${r}V${r}H${-r}Z`,
    (r) => `M0,${-r}L${r},${r}H${-r}Z`, (r) => `M0,${-1.2 * r}L${1.2 * r},0L0,${1.2 * r}L${-1.2 * r},0Z`,
    (r) => `M0,${r}L${r},${-r}H${-r}Z`, (r) => `M0,${-r}L${r},${-0.2 * r}L${0.6 * r},${r}H${-0.6 * r}L${-r},${-0.2 * r}Z`,
    (r) => `M${-r},0L${-r / 2},${-r}H${r / 2}L${r},0L${r / 2},${r}H${-r / 2}Z`,
    (r) => `M${-r},${-r / 2.5}H${-r / 2.5}V${-r}H${r / 2.5}V${-r / 2.5}H${r}V${r / 2.5}H${r / 2.5}V${r}H${-r / 2.5}V${r / 2.5}H${-r}Z`,
  ];
  const ANGLES = [0.3, 0, -0.5, 0.8, -1, 1.6, -1.6, 2.4, -2.4, 3.1, 2.8, -2.8].map((a) => [Math.cos(a), Math.sin(a)]);
  const pen = document.createElement("canvas").getContext("2d");
  const node = (name, attributes, parent) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (parent) parent.append(made);
    return made;
  };
  const around = ([x, y], r) => [x - r, y - r, x + r, y + r];
  const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

  // Find the nearest free box for a text around a point; null where there is none. The box is then taken.
  function place(text, font, [x, y], reaches, taken) {
    pen.font = font;
    const w = pen.measureText(text).width + 4, h = 1.25 * parseFloat(font.match(/[\d.]+px/)[0]);
    for (const reach of reaches) {
      for (const [c, s] of ANGLES) {
        const side = (v) => Math.max(-1, Math.min(1, 1.5 * v));
        const mx = x + c * reach + side(c) * w / 2, my = y - s * reach - side(s) * h / 2;
        const box = [mx - w / 2, my - h / 2, mx + w / 2, my + h / 2];
        const inside = box[0] >= EDGE.left && box[2] <= W - EDGE.right && box[1] >= EDGE.top && box[3] <= H - EDGE.bottom;
        if (inside && !taken.some((other) => overlap(box, other))) { taken.push(box); return box; }
      }
    }
    return null;
  }

  const write = (svg, box, text, style) => node("text", { class: style, x: (box[0] + box[2]) / 2, y: (box[1] + box[3]) / 2 }, svg).append(text);

  function axes(svg, range, x, y) {
    for (const [along, [low, high]] of range.entries()) {
      for (let tick = Math.ceil(low * 2) / 2; tick <= high; tick += 0.5) {
        const at = along ? [EDGE.left, y(tick), W - EDGE.right, y(tick)] : [x(tick), EDGE.top, x(tick), H - EDGE.bottom];
        node("line", { class: "grid", x1: at[0], y1: at[1], x2: at[2], y2: at[3] }, svg);
        const text = along ? { x: EDGE.left - 8, y: y(tick), class: "tick end" } : { x: x(tick), y: H - EDGE.bottom + 16, class: "tick" };
        node("text", text, svg).append(culteval.show(tick, 1));
      }
    }
    node("text", { class: "axis", x: W / 2, y: H - 10 }, svg).append("survival to self-expression values →");
    node("text", { class: "axis", transform: `translate(16,${H / 2}) rotate(-90)` }, svg).append("traditional to secular values →");
  }

  function tell(host, target, lines) {
    const hint = host.querySelector(".hint");
    const show = (event) => {
      hint.replaceChildren(...lines.map((line, i) => Object.assign(document.createElement(i ? "div" : "b"), { textContent: line })));
      hint.hidden = false;
      const frame = host.getBoundingClientRect(), spot = target.getBoundingClientRect();
      hint.style.left = `${Math.min(spot.right - frame.left + 8, frame.width - hint.offsetWidth - 4)}px`;
      hint.style.top = `${Math.max(0, spot.top - frame.top - hint.offsetHeight - 6)}px`;
      event.stopPropagation();
    };
    const hide = () => { hint.hidden = true; };
    for (const [kind, what] of [["pointerenter", show], ["focus", show], ["pointerleave", hide], ["blur", hide]]) target.addEventListener(kind, what);
    node("title", {}, target).append(lines.join("; "));
  }

  // Draw countries [code, name, zone, secular, expression] and marks { name, kind, at, error, from, lines } into a host; ring the country `own`.
  culteval.drawMap = (host, map, marks, hidden, own) => {
    const every = [...map.countries.map((c) => [c[3], c[4]]), ...marks.map((m) => m.at)];
    const range = [1, 0].map((axis) => {
      const values = every.map((point) => point[axis]), low = Math.min(...values), high = Math.max(...values);
      return [low - 0.06 * (high - low), high + 0.06 * (high - low)];
    });
    const x = (v) => EDGE.left + (v - range[0][0]) / (range[0][1] - range[0][0]) * (W - EDGE.left - EDGE.right);
    const y = (v) => H - EDGE.bottom - (v - range[1][0]) / (range[1][1] - range[1][0]) * (H - EDGE.top - EDGE.bottom);
    const px = ([secular, expression]) => [x(expression), y(secular)];
    const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Cultural map" });
    const family = getComputedStyle(document.body).fontFamily;
    host.querySelector(".canvas").replaceChildren(svg);
    axes(svg, range, x, y);
    const countries = map.countries.filter((c) => !hidden.has(c[2]));
    const dots = countries.map((c) => px([c[3], c[4]])), spots = marks.map((m) => px(m.at));
    const taken = [...spots.map((p) => around(p, 8)), ...dots.map((p) => around(p, 4))];
    for (const m of marks) region(svg, m, px(m.at), x, y, range);
    for (const m of marks.filter((one) => one.from)) arrow(svg, px(m.from), px(m.at));
    for (const [i, c] of countries.entries()) {
      const dot = node("path", { class: `zone z${c[2] ?? "x"}`, d: SHAPES[c[2] ?? 0](5), transform: `translate(${dots[i]})` }, svg);
      if (c[0] === own) node("circle", { class: "own", cx: dots[i][0], cy: dots[i][1], r: 10 }, svg);
      tell(host, dot, [c[1], map.zones[c[2]] || "no zone", `secular ${culteval.show(c[3], 2)}, self-expression ${culteval.show(c[4], 2)}`]);
    }
    for (const [i, m] of marks.entries()) {
      const d = m.kind === "null" ? "M-6,-6L6,6M-6,6L6,-6" : SHAPES[0](7);
      const dot = node("path", { class: `point ${m.kind}`, d, transform: `translate(${spots[i]})`, tabindex: 0 }, svg);
      tell(host, dot, m.lines);
    }
    const far = Array.from({ length: 30 }, (_, i) => 9 + 12 * i);
    for (const [i, m] of marks.entries()) {
      const name = m.name.length > 32 ? `${m.name.slice(0, 30)}…` : m.name;
      const box = place(name, `700 14px ${family}`, spots[i], far, taken);
      if (box) { lead(svg, spots[i], box); write(svg, box, name, "name"); }
    }
    for (const [i, c] of countries.entries()) {
      if (c[0] !== own) continue;
      taken.push(around(dots[i], 10));
      const box = place(c[1], `700 11px ${family}`, dots[i], [12, 16, 24], taken);
      if (box) write(svg, box, c[1], "country own");
    }
    for (const [i, c] of countries.entries()) {
      if (c[0] === own) continue;
      const full = place(c[1], `11px ${family}`, dots[i], [6, 10], taken);
      const box = full || place(c[0], `11px ${family}`, dots[i], [6, 10], taken);
      if (box) write(svg, box, full ? c[1] : c[0], "country");
    }
  };

  function region(svg, m, [cx, cy], x, y) {
    const [high, wide] = m.error.map((e) => REGION * e);
    if (high && wide) node("ellipse", { class: "region", cx, cy, rx: x(wide) - x(0), ry: y(0) - y(high) }, svg);
  }

  function arrow(svg, [x1, y1], [x2, y2]) {
    const length = Math.hypot(x2 - x1, y2 - y1), [c, s] = [(x2 - x1) / length, (y2 - y1) / length];
    if (!(length > 20)) return;
    const [ex, ey] = [x2 - 9 * c, y2 - 9 * s];
    node("path", { class: "arrow", d: `M${x1 + 8 * c},${y1 + 8 * s}L${ex},${ey}m${-9 * c - 4 * s},${-9 * s + 4 * c}L${ex},${ey}l${-9 * c + 4 * s},${-9 * s - 4 * c}` }, svg);
  }

  function lead(svg, [x0, y0], box) {
    const ex = Math.max(box[0], Math.min(x0, box[2])), ey = Math.max(box[1], Math.min(y0, box[3]));
    if (Math.hypot(ex - x0, ey - y0) > 14) node("line", { class: "lead", x1: x0, y1: y0, x2: ex, y2: ey }, svg);
  }

  // One button a zone, which hides and shows its countries.
  culteval.mapLegend = (host, zones, hidden, redraw) => {
    host.querySelector(".zones").replaceChildren(...zones.map((name, zone) => {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "ghost" });
      button.setAttribute("aria-pressed", String(!hidden.has(zone)));
      const sign = node("svg", { viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": "true" });
      node("path", { class: `zone z${zone}`, d: SHAPES[zone](5) }, sign);
      button.append(sign, ` ${name}`);
      button.addEventListener("click", () => {
        if (!hidden.delete(zone)) hidden.add(zone);
        button.setAttribute("aria-pressed", String(!hidden.has(zone)));
        redraw();
      });
      return button;
    }));
  };
})();
