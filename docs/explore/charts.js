/*
Charts as inline SVG with real text, drawn at the width that they have on the page so that letters keep their size.
`charts.frame` draws axes and returns what places marks on them. Italic letters of labels stand between underscores.
*/
"use strict";

const charts = (() => {
  const NAMESPACE = "http://www.w3.org/2000/svg";

  /** An SVG element with attributes and children. */
  function el(name, attributes = {}, ...children) {
    const node = document.createElementNS(NAMESPACE, name);
    for (const [key, value] of Object.entries(attributes)) if (value !== "") node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  /** "_J_ of the policy" as spans, letters between underscores italic. */
  function rich(text) {
    return text.split("_").map((part, i) => (i % 2 ? el("tspan", { class: "italic" }, part) : part));
  }

  const SUPERSCRIPT = { "-": "⁻" };
  [..."⁰¹²³⁴⁵⁶⁷⁸⁹"].forEach((raised, digit) => { SUPERSCRIPT[digit] = raised; });

  /** A number in `digits` significant digits, with a true minus and powers of ten where it is long. */
  function format(x, digits = 3) {
    if (!Number.isFinite(x)) return x > 0 ? "∞" : x < 0 ? "−∞" : "–";
    if (x === 0) return "0";
    const exponent = Math.floor(Math.log10(Math.abs(Number(x.toPrecision(digits)))));
    if (exponent < -4 || exponent > 5) {
      const [mantissa, power] = x.toExponential(digits - 1).split("e");
      return `${mantissa.replace("-", "−")}×10${[...power.replace("+", "")].map((c) => SUPERSCRIPT[c]).join("")}`;
    }
    return x.toFixed(Math.max(0, digits - 1 - exponent)).replace("-", "−");
  }

  /** The same without trailing zeros, for ticks and settings. */
  const brief = (x, digits = 3) => format(x, digits).replace(/(\.\d*?)0+(?=$|×)/, "$1").replace(/\.(?=$|×)/, "");

  /** A decade or a settled tick: 0.001, 10⁻⁵, 0.9999. */
  function tickText(x) {
    const long = x !== 0 && (Math.abs(x) < 1e-4 || Math.abs(x) >= 1e6);
    return long ? format(x, 1).replace("1×", "") : brief(x, 4);
  }

  const decades = (low, high) => {
    const ticks = [];
    for (let k = Math.ceil(Math.log10(low) - 1e-9); k <= Math.log10(high) + 1e-9; k++) ticks.push(10 ** k);
    return ticks;
  };
  const steps = (low, high, most) => {
    const rough = (high - low) / most, unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 2.5, 5, 10].find((m) => m * unit >= rough * (1 - 1e-9));
    const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(12)));
  };
  const logit = (x) => Math.log(x) - Math.log1p(-x);
  const SCALES = {
    linear: { to: (x) => x, back: (u) => u, ticks: steps },
    log: { to: Math.log10, back: (u) => 10 ** u, ticks: decades },
    logit: {
      to: logit, back: (u) => 1 / (1 + Math.exp(-u)),
      ticks: () => [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999],
    },
  };

  /** Map of an axis {scale, domain} to the pixels `from`–`to`. */
  function scale({ scale: kind = "linear", domain }, from, to) {
    const { to: forward, back, ticks } = SCALES[kind], [low, high] = domain.map(forward);
    const at = (x) => from + (to - from) * (forward(x) - low) / (high - low);
    at.back = (pixel) => back(low + (high - low) * (pixel - from) / (to - from));
    at.ticks = (most) => ticks(...domain, most);
    return at;
  }

  /** Every second, third… tick, until their labels are `space` pixels apart; the middle one is kept. */
  function thinned(ticks, at, space) {
    const middle = Math.floor(ticks.length / 2);
    for (let every = 1; every < ticks.length; every++) {
      const kept = ticks.filter((_, i) => (i - middle) % every === 0);
      if (kept.every((x, i) => i === 0 || Math.abs(at(x) - at(kept[i - 1])) >= space)) return kept;
    }
    return ticks.slice(middle, middle + 1);
  }

  /**
   * Axes in an <svg>, emptied first.
   *
   * x, y: {scale, domain, label, ticks, format}; a chart without x.label has no room below its axis. Returns the scales
   * X and Y, which the <svg> keeps as `scales`, the groups `front` and `back`, clipped to the axes, and the box of the
   * axes in pixels.
   */
  function frame(svg, { x, y, height, left = 52 }) {
    const width = Math.max(svg.parentElement.clientWidth, 240);
    const box = { left, right: width - 22, top: 26, bottom: height - (x.label ? 42 : 10) };
    svg.replaceChildren(...svg.querySelectorAll(":scope > title, :scope > desc"));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    const X = scale(x, box.left, box.right), Y = scale(y, box.bottom, box.top);
    const grid = el("g", { class: "grid" }), text = el("g", { class: "axis" });
    const xTicks = x.ticks ?? thinned(X.ticks(Math.max(2, (box.right - box.left) / 80)), X, 46);
    const yTicks = y.ticks ?? thinned(Y.ticks(5), Y, 22);
    const label = (tick, axis, place) => text.append(el("text", place, (axis.format ?? tickText)(tick)));
    for (const tick of xTicks) {
      grid.append(el("line", { x1: X(tick), x2: X(tick), y1: box.top, y2: box.bottom }));
      label(tick, x, { x: X(tick), y: box.bottom + 17, "text-anchor": "middle" });
    }
    for (const tick of yTicks) {
      grid.append(el("line", { x1: box.left, x2: box.right, y1: Y(tick), y2: Y(tick) }));
      label(tick, y, { x: box.left - 8, y: Y(tick) + 4, "text-anchor": "end" });
    }
    text.append(el("line", { class: "base", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    if (x.label) {
      text.append(el("text", { class: "label", x: box.right, y: height - 6, "text-anchor": "end" }, ...rich(x.label)));
    }
    text.append(el("text", { class: "label", x: 2, y: 14 }, ...rich(y.label)));
    const clip = `${svg.id}-clip`;
    const shape = el("rect", {
      x: box.left - 6, y: box.top - 6, width: box.right - box.left + 12, height: box.bottom - box.top + 12,
    });
    const back = el("g", { "clip-path": `url(#${clip})` }), front = el("g", { "clip-path": `url(#${clip})` });
    svg.scales = { X, Y };
    svg.append(el("defs", {}, el("clipPath", { id: clip }, shape)), grid, back, text, front);
    return { X, Y, back, front, box, width };
  }

  /** A path through points [x, y] in pixels; what is not a number is a gap. */
  function line(points, attributes) {
    let d = "", drawing = false;
    for (const [x, y] of points) {
      if (Number.isFinite(x) && Number.isFinite(y)) {
        d += `${drawing ? "L" : "M"}${x.toFixed(1)} ${Math.max(-1e4, Math.min(1e4, y)).toFixed(1)}`;
        drawing = true;
      } else drawing = false;
    }
    return el("path", { d, fill: "none", ...attributes });
  }

  /** Line of a law. */
  const lawLine = (points, law, attributes = {}) =>
    line(points, { class: "law", "data-law": law.id, stroke: law.colour, "stroke-dasharray": law.dash, ...attributes });

  /** Mark of a law, a shape of its own. */
  function mark(x, y, law, size = 4.5) {
    const at = { class: "mark", stroke: law.colour, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` };
    const s = size, t = size - 1, hollow = { ...at, class: "mark hollow" }, full = { ...at, fill: law.colour };
    return {
      circle: () => el("circle", { ...hollow, r: s }),
      disc: () => el("circle", { ...full, r: s - 0.8 }),
      square: () => el("rect", { ...hollow, x: -s + 0.7, y: -s + 0.7, width: 2 * s - 1.4, height: 2 * s - 1.4 }),
      diamond: () => el("path", { ...full, d: `M0 ${-s}L${s} 0L0 ${s}L${-s} 0Z` }),
      triangle: () => el("path", { ...full, d: `M0 ${-s}L${s} ${0.8 * s}L${-s} ${0.8 * s}Z` }),
      wedge: () => el("path", { ...hollow, d: `M0 ${s}L${s} ${-0.8 * s}L${-s} ${-0.8 * s}Z` }),
      cross: () => el("path", { ...at, d: `M${-t} ${-t}L${t} ${t}M${-t} ${t}L${t} ${-t}` }),
    }[law.mark]();
  }

  return { brief, el, format, frame, lawLine, line, logit, mark, rich };
})();
