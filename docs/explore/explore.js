/*
The page: its settings, which also stand in the address, and the five views and the table that are drawn from them.
*/
"use strict";

const explore = (() => {
  const { brief, el, format, frame, lawLine, line, mark } = charts;
  const $ = (id) => document.getElementById(id);

  /* ---------- settings ---------- */

  const DEFAULTS = {
    J: 0.25, tau: 0.2, K: 8, rewards: "binary", seed: 1, own: [], laws: ["kl", "pmd-mean"], b: 0.5, kappa: 0.1, beta: 3,
    n: 8,
  };
  const LIMITS = {
    J: [1e-9, 1 - 1e-9], tau: [1e-3, 100], b: [-0.99, 2], kappa: [1e-3, 100], beta: [1, 1000], n: [2, 64],
  };
  const PRESETS = ["binary", "graded", "rare", "random"];

  /** Knobs of laws: a range input at `to(value)`, which `back` inverts. */
  const KNOBS = {
    baseline: {
      key: "b", low: -0.99, high: 2, step: 0.01, to: (x) => x, back: (x) => Math.round(x * 100) / 100,
      label: "Baseline <var>b</var>",
      ticks: [[-0.99, "−∞"], [0, "mean"], [1, "<var>τ</var> log <var>Z</var>"], [2, "<var>b</var><sub>max</sub>"]],
    },
    "fixed-chi2": { key: "kappa", low: -3, high: 2, step: 0.02, to: Math.log10, back: raise, label: "Weight <var>κ</var>" },
    "two-temperatures": {
      key: "beta", low: 0, high: 3, step: 0.02, to: Math.log10, back: raise, label: "<var>β</var>₁ in units of <var>τ</var>",
    },
  };

  let state = { ...DEFAULTS };

  function raise(x) {
    return Number((10 ** x).toPrecision(3));
  }
  const clamp = (x, [low, high]) => Math.min(high, Math.max(low, x));

  /** A mean reward at a log-odds in powers of ten, in three digits of the smaller of it and its complement. */
  function meanRewardAt(position) {
    return position <= 0
      ? Number((1 / (1 + 10 ** -position)).toPrecision(3))
      : 1 - Number((1 / (1 + 10 ** position)).toPrecision(3));
  }

  /** Uniform numbers in [0, 1) from a seed (mulberry32). */
  function uniforms(seed, count) {
    let a = seed >>> 0;
    return Array.from({ length: count }, () => {
      a = (a + 0x6d2b79f5) >>> 0;
      let t = Math.imul(a ^ (a >>> 15), 1 | a);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    });
  }

  /** Rewards of a preset in increasing order, from 0 to 1. */
  function preset({ rewards, K, seed }) {
    const each = (reward) => Array.from({ length: K }, (_, i) => Number(reward(i).toFixed(4)));
    if (rewards === "graded") return each((i) => i / (K - 1));
    if (rewards === "rare") return each((i) => (i === K - 1 ? 1 : K > 2 ? 0.4 * i / (K - 2) : 0));
    if (rewards === "random") {
      const drawn = uniforms(seed, K).sort((x, y) => x - y);
      return each((i) => (drawn[i] - drawn[0]) / (drawn[K - 1] - drawn[0]));
    }
    const successes = Math.max(1, Math.round(K / 4));
    return each((i) => (i < K - successes ? 0 : 1));
  }

  const rewardsOf = (settings) => (settings.rewards === "own" ? settings.own : preset(settings));

  /** Share of the rewards' range at which the mean reward lies, inside it. */
  function shareOf(r, J) {
    const low = Math.min(...r), high = Math.max(...r);
    return high > low ? clamp((J - low) / (high - low), LIMITS.J) : 0.5;
  }

  /* ---------- the address ---------- */

  function written(settings) {
    const parts = [];
    for (const key of ["J", "tau", "K", "rewards", "seed", "laws", "b", "kappa", "beta", "n"]) {
      const value = key === "rewards" && settings.rewards === "own" ? settings.own : settings[key];
      if (String(value) !== String(DEFAULTS[key])) parts.push(`${key}=${value}`);
    }
    return parts.length ? `#${parts.join("&")}` : "#";
  }

  /** Settings of an address; what cannot be read is left at its default. */
  function read(hash) {
    const settings = { ...DEFAULTS };
    for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
      const number = Number(text);
      if (key in LIMITS && key !== "n" && text && Number.isFinite(number)) settings[key] = clamp(number, LIMITS[key]);
      if (key === "K" && Number.isInteger(number)) settings.K = clamp(number, [2, 50]);
      if (key === "n" && Number.isInteger(number)) settings.n = clamp(number, LIMITS.n);
      if (key === "seed" && Number.isInteger(number)) settings.seed = clamp(number, [0, 9999]);
      if (key === "laws") settings.laws = laws.map((law) => law.id).filter((id) => text.split(",").includes(id));
      if (key !== "rewards") continue;
      const own = text.split(",").map((part) => Math.round(Number(part) * 1e4) / 1e4);
      if (PRESETS.includes(text)) settings.rewards = text;
      else if (own.length >= 2 && own.length <= 50 && own.every((x) => x >= 0 && x <= 1)) {
        Object.assign(settings, { rewards: "own", own });
      }
    }
    if (settings.rewards === "own") settings.K = settings.own.length;
    return settings;
  }

  let shown = "";  // the address that this page wrote last

  function remember() {
    shown = written(state);
    history.replaceState(null, "", shown === "#" ? location.pathname + location.search : shown);
  }

  /* ---------- what follows from the settings ---------- */

  /** One law at one policy: the update, its divergences and its mean reward; null where it has none. */
  function step(law, p, r, settings) {
    try {
      const update = law.update(p, r, settings);
      return { law, update, ...updates.movement(p, update.logRatio), J: updates.mean(update.policy, r) };
    } catch {
      return null;
    }
  }

  function solved(settings) {
    const r = rewardsOf(settings), p = updates.evenPolicy(r, shareOf(r, settings.J));
    const chosen = laws.filter((law) => settings.laws.includes(law.id));
    const steps = chosen.map((law) => step(law, p, r, settings));
    const failed = chosen.filter((_, i) => !steps[i]).map((law) => law.name);
    return { r, p, J: updates.mean(p, r), steps: steps.filter(Boolean), failed };
  }

  const GRID = Array.from({ length: 81 }, (_, i) => 1 / (1 + 10 ** (4 - i / 10)));

  /** Distinct rewards and how many actions have each: actions of equal reward have equal ratios. */
  function levelsOf(r) {
    const values = [...new Set(r)].sort((x, y) => x - y);
    return { values, counts: values.map((value) => r.filter((x) => x === value).length) };
  }

  /** Each law along the mean reward, for these rewards. */
  function along(r, chosen, settings) {
    const { values, counts } = levelsOf(r);
    if (values.length < 2) return { x: [], curves: chosen.map((law) => ({ law, steps: [] })), p: [], values };
    const low = values[0], range = values.at(-1) - low;
    const p = GRID.map((share) => {
      const own = updates.evenPolicy(r, share);
      return values.map((value, i) => own[r.indexOf(value)] * counts[i]);
    });
    const curves = chosen.map((law) => ({ law, steps: p.map((policy) => step(law, policy, values, settings)) }));
    return { x: GRID.map((share) => low + range * share), p, curves, values };
  }

  /* ---------- the views ---------- */

  const names = (steps, value) => {
    const parts = steps.map((s) => `${value(s)} (${s.law.name})`);
    return parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}` : parts.join("");
  };
  const find = (steps, id) => steps.find((s) => s.law.id === id);
  const share = (x) => `${brief(100 * x, x >= 0.0995 ? 3 : 2)}\u202f%`;

  /** A mark drawn with its line, as in the charts. */
  function sample(law) {
    return el("svg", { width: 30, height: 12, "aria-hidden": "true", class: "sample" },
      lawLine([[1, 6], [29, 6]], law), mark(15, 6, law, 4.2));
  }

  function legends(steps) {
    for (const place of document.querySelectorAll("figure:not(#view-rollouts) .legend")) {
      const before = place.parentElement.id === "view-policies" ? ["before, p"] : [];
      place.replaceChildren(...before.map((text) => {
        const item = document.createElement("span");
        item.append(Object.assign(document.createElement("i"), { className: "before" }), text);
        return item;
      }), ...steps.map(({ law }) => {
        const item = document.createElement("span");
        item.append(sample(law), law.name);
        return item;
      }));
    }
  }

  const slots = (box, K) => {
    const width = (box.right - box.left) / K;
    return { width, at: (i) => box.left + i * width };
  };
  const actionTicks = (K, width) => {
    const every = [1, 2, 5, 10].find((n) => n * width >= 26) ?? 25;
    return Array.from({ length: K }, (_, i) => i + 1).filter((i) => i === 1 || i % every === 0);
  };

  function drawPolicies({ r, p, J, steps }) {
    const K = p.length;
    const top = Math.max(...p, ...steps.flatMap(({ update }) => update.policy));
    const { back, front, box, Y } = frame($("policies"), {
      x: { domain: [0, K], ticks: [], label: "" }, y: { domain: [0, top * 1.05], label: "probability" }, height: 250,
    });
    const { width, at } = slots(box, K), gap = Math.min(width * 0.16, 14);
    const bar = (width - gap) / Math.max(steps.length, 1);
    p.forEach((value, i) => back.append(el("rect", {
      class: "before", x: at(i) + gap / 4, width: width - gap / 2, y: Y(value), height: box.bottom - Y(value),
    })));
    steps.forEach(({ law, update }, j) => {
      if (bar < 3) {  // too narrow for bars: one level line over the actions
        const points = update.policy.flatMap((value, i) => [[at(i) + gap / 4, Y(value)], [at(i + 1) - gap / 4, Y(value)]]);
        front.append(lawLine(points, law));
        return;
      }
      const group = el("g", { "data-law": law.id, fill: law.colour });
      update.policy.forEach((value, i) => {
        const inset = Math.min(1.5, bar * 0.12);
        group.append(el("rect", {
          class: "after", x: at(i) + gap / 2 + j * bar + inset, width: bar - 2 * inset, y: Y(value),
          height: Math.max(box.bottom - Y(value), 0.8),
        }));
      });
      front.append(group);
    });
    $("policies-reading").textContent = `The mean reward is ${brief(J)} before the step and ${
      names(steps, (s) => brief(s.J)) || "unknown (choose a law)"} after it.`;
    drawRewards(r);
  }

  let held = 0;  // the action whose reward the keys change

  function drawRewards(r) {
    const svg = $("bars"), focused = svg.contains(document.activeElement);
    const K = r.length;
    held = Math.min(held, K - 1);
    const { Y, front, box } = frame(svg, {
      x: { domain: [0, K], ticks: [], label: "action (drag a bar, or use the arrow keys)" },
      y: { domain: [0, 1], ticks: [0, 1], label: "_r_" }, height: 112,
    });
    const { width, at } = slots(box, K);
    for (const i of actionTicks(K, width)) {
      svg.append(el("text", { class: "axis", x: at(i - 0.5), y: box.bottom + 16, "text-anchor": "middle" }, String(i)));
    }
    r.forEach((value, i) => {
      const inset = Math.min(width * 0.12, 6);
      const handle = el("g", {
        role: "slider", tabindex: i === held ? "0" : "-1", class: "handle", "data-action": i, "aria-valuemin": "0",
        "aria-valuemax": "1", "aria-valuenow": value, "aria-label": `Reward of action ${i + 1}`,
      });
      handle.append(
        el("rect", { class: "room", x: at(i), width, y: box.top, height: box.bottom - box.top }),
        el("rect", { class: "reward", x: at(i) + inset, width: width - 2 * inset, y: Y(value) - 1, height: box.bottom - Y(value) + 1 }),
        el("line", { class: "grip", x1: at(i) + inset, x2: at(i + 1) - inset, y1: Y(value), y2: Y(value) }),
      );
      front.append(handle);
    });
    if (focused) svg.querySelector(`[data-action="${held}"]`).focus();
  }

  function drawRatio({ r, J, steps }, { tau }) {
    const low = Math.min(...r), high = Math.max(...r), samples = Array.from({ length: 81 }, (_, i) => i / 80);
    const curves = steps.map((s) => {
      const { update, law } = s;
      const points = law.id === "quantile"
        ? levelsOf(r).values.map((value) => [value, tau * update.logRatio[r.indexOf(value)]])
        : samples.map((x) => {
          const value = low + (high - low) * x;
          return [value, tau * updates.ratioAt((value - update.baseline) / update.tau, update.weight)];
        });
      return { ...s, points };
    });
    const all = curves.flatMap(({ points }) => points.map(([, y]) => y)).filter(Number.isFinite);
    const bottom = Math.min(0, ...all), top = Math.max(0, ...all), room = Math.max((top - bottom) * 0.06, 1e-12);
    const { X, Y, back, front, box } = frame($("ratio"), {
      x: { domain: [-0.02, 1.02], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], label: "reward _r_" },
      y: { domain: [bottom - room, top + room], label: "_τ_ log(_q_/_p_), in units of the reward" }, height: 300,
    });
    back.append(el("line", { class: "zero", x1: box.left, x2: box.right, y1: Y(0), y2: Y(0) }));
    back.append(el("line", { class: "guide", x1: X(J), x2: X(J), y1: box.top, y2: box.bottom }));
    back.append(el("text", {
      class: "note", x: X(J) + (J > 0.8 ? -5 : 5), y: box.bottom - 6, "text-anchor": J > 0.8 ? "end" : "start",
    }, "mean reward"));
    for (const { law, update, points } of curves) {
      front.append(lawLine(points.map(([x, y]) => [X(x), Y(y)]), law));
      let last = -Infinity;
      for (const value of levelsOf(r).values) {  // so many marks that the line is still seen
        if (X(value) < last + 24 && value < high) continue;
        last = X(value);
        front.append(mark(last, Y(tau * update.logRatio[r.indexOf(value)]), law));
      }
    }
    const bent = find(steps, "pmd-mean");
    const slope = (value) => 1 / (1 + bent.update.weight * Math.exp(bent.update.logRatio[r.indexOf(value)]));
    $("ratio-reading").textContent = low === high ? "All rewards are equal: nothing moves."
      : bent ? `A KL update has slope 1 everywhere. PMD-mean has slope 1/(1 + λρ), ρ = q/p: ${brief(slope(low))} at the lowest reward and ${
        brief(slope(high))} at the highest.` : "A KL update has slope 1 everywhere.";
  }

  /** Axes over the mean reward, on a logit scale of its range. */
  const meanRewardAxis = (r, label) => {
    const low = Math.min(...r), range = Math.max(...r) - low;
    return { scale: "logit", domain: [1e-4, 1 - 1e-4], label, format: (x) => brief(low + range * x, 4) };
  };

  function drawWeight({ r, p, J, steps }, settings) {
    const { tau } = settings, low = Math.min(...r), range = Math.max(...r) - low;
    const { x, p: policies, curves, values } = along(r, steps.map(({ law }) => law), settings);
    const bound = x.map((mean, i) => {
      const deviation = Math.sqrt(policies[i].reduce((total, q, k) => total + q * (values[k] - mean) ** 2, 0));
      return Math.min(deviation / 2, tau * updates.jensenGap(policies[i], values, tau));
    });
    const top = 1.25 * Math.max(1e-12, ...bound);
    const { X, Y, back, front, box } = frame($("weight"), {
      x: meanRewardAxis(r, "mean reward _J_ (drag to change it)"), y: { domain: [Math.min(0, ...steps.map(
        ({ law, update }) => (law.id === "baseline" ? Math.max(update.tau * update.weight, -top) : 0))), top], label: "_τλ_, in units of the reward" },
      height: 300,
    });
    const at = (mean) => X((mean - low) / range);
    if (range > 0) {
      back.append(el("line", { class: "guide", x1: at(J), x2: at(J), y1: box.top, y2: box.bottom }));
      back.append(line(x.map((mean, i) => [at(mean), Y(bound[i])]), { class: "bound" }));
      for (const { law, steps: own } of curves) {
        front.append(lawLine(x.map((mean, i) => [at(mean), own[i] ? Y(own[i].update.tau * own[i].update.weight) : NaN]), law));
      }
      for (const { law, update, reverseKl } of steps) {
        const height = update.tau * update.weight;
        if (height > top) front.append(el("text", { class: "note", x: at(J) + 8, y: box.top + 8 }, `↑ ${law.name}: ${brief(height)}`));
        else front.append(mark(at(J), Y(height), law));
        if (law.id === "pmd-mean") front.append(el("circle", { class: "check", cx: at(J), cy: Y(tau * reverseKl), r: 8 }));
      }
    }
    const mean = find(steps, "pmd-mean");
    const bounds = `Dotted: PMD-mean's bound, the smaller of the Jensen gap and half a standard deviation (Statement 6).${
      find(steps, "quantile") ? " Ranked rewards are in units of a rank." : ""}`;
    $("weight-reading").textContent = mean
      ? `PMD-mean has λ = ${format(mean.update.weight, 7)} from the root, and KL(p‖q) = ${format(mean.reverseKl, 7)} from the two policies (ring), as Statement 4 says. ${bounds}`
      : bounds;
  }

  function drawFailures({ r, J, steps }, settings) {
    const { tau } = settings, success = clamp(shareOf(r, J), LIMITS.J), chosen = steps.map(({ law }) => law);
    const kept = (law, rate) => {
      const found = step(law, [1 - rate, rate], [0, 1], settings);
      return found ? updates.failureFactor(found.update) : NaN;
    };
    const lowest = updates.failureBounds(1, tau)[0];
    const bottom = 10 ** clamp(Math.floor(Math.log10(lowest)), [-6, -1]);
    const { X, Y, back, front, box } = frame($("failures"), {
      x: { scale: "logit", domain: [1e-4, 1 - 1e-4], label: "success rate _J_ (drag to change it)" },
      y: { scale: "log", domain: [bottom, 1.3], label: "share of the failures that is left, (1 − _J_′)/(1 − _J_)" },
      height: 300,
    });
    const bounds = GRID.map((rate) => updates.failureBounds(rate, tau));
    const upper = bounds.map(([, high], i) => [X(GRID[i]), Y(high)]);
    const lower = bounds.map(([least], i) => [X(GRID[i]), Y(least)]);
    if (find(steps, "pmd-mean")) {
      back.append(line([...upper, ...lower.reverse()], { class: "band" }));
    }
    back.append(el("line", { class: "guide", x1: X(success), x2: X(success), y1: box.top, y2: box.bottom }));
    for (const law of chosen) {
      front.append(lawLine(GRID.map((rate) => [X(rate), Y(kept(law, rate))]), law));
      const now = kept(law, success);
      if (now >= bottom) front.append(mark(X(success), Y(now), law));
    }
    const below = chosen.filter((law) => kept(law, success) < bottom);
    if (below.length) {
      front.append(el("text", { class: "note", x: X(success) + (success > 0.5 ? -10 : 10), y: box.bottom - 8,
        "text-anchor": success > 0.5 ? "end" : "start" }, `↓ ${below.length > 3 ? `${below.length} laws` : below.map((law) => law.name).join(", ")}`));
    }
    const [least, most] = updates.failureBounds(success, tau);
    const binary = r.every((x) => x === 0 || x === 1);
    $("failures-reading").textContent = `At success rate ${brief(success)}${binary ? "" : ", for rewards 0 and 1,"} there remain ${
      names(chosen.map((law) => ({ law, left: kept(law, success) })), (s) => share(s.left)) || "–"}. ${
      find(steps, "pmd-mean") ? `Shaded: PMD-mean's bounds, ${share(least)} to ${share(most)} (Statement 9).` : ""}`;
  }

  function drawRollouts({ r, J }, { tau, n }) {
    const success = shareOf(r, J), rows = updates.estimates(success, tau, n);
    const ideal = updates.kl([1 - success, success], [0, 1], tau).baseline;
    const top = Math.max(...rows.map(({ chance }) => chance));
    const { X, Y, back, front, box } = frame($("rollouts"), {
      x: { domain: [-0.03, 1.03], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], label: "estimated baseline, in units of the reward" },
      y: { domain: [0, 1.12 * top], label: "probability" }, height: 300,
    });
    const [logPartition, average] = ["kl", "pmd-mean"].map((id) => laws.find((law) => law.id === id));
    for (const [law, target] of [[logPartition, ideal], [average, success]]) {
      back.append(line([[X(target), box.top], [X(target), box.bottom]], {
        class: "target", stroke: law.colour, "data-target": law.id,
      }));
    }
    for (const [law, key] of [[logPartition, "logPartition"], [average, "mean"]]) {
      for (const row of rows) {
        if (row.chance < 1e-3 * top) continue;
        front.append(line([[X(row[key]), Y(0)], [X(row[key]), Y(row.chance)]], { class: "stem", stroke: law.colour }),
          mark(X(row[key]), Y(row.chance), law, n > 24 ? 3.2 : 4.5));
      }
    }

    const moment = (value) => rows.reduce((total, row) => total + row.chance * value(row), 0);
    const error = (key, target) => Math.sqrt(moment((row) => (row[key] - target) ** 2));
    const key = [[average, "mean reward of the rollouts"], [logPartition, "τ log Ẑ of the rollouts"]];
    document.querySelector("#view-rollouts .legend").replaceChildren(...key.map(([law, text]) => {
      const item = document.createElement("span");
      item.append(el("svg", { width: 14, height: 12, "aria-hidden": "true", class: "sample" }, mark(7, 6, law, 4.2)), text);
      return item;
    }));
    $("rollouts-reading").textContent = `Vertical lines: what they estimate, J = ${brief(success)} and τ log Z = ${
      brief(ideal)}. Their root mean square errors are ${brief(error("mean", success), 2)} and ${
      brief(error("logPartition", ideal), 2)}. With probability ${brief(rows[0].chance, 2)} no rollout succeeds, and both estimates are 0 (Statement 12).`;
  }

  /** Rows of the table: name, letters between underscores italic; how it reads for a screen reader; value. */
  const ROWS = [
    ["_λ_", "lambda, the weight of chi-square in units of tau", ({ update }) => update.weight],
    ["_τλ_", "tau lambda, the weight of chi-square in units of the reward", ({ update }) => update.tau * update.weight],
    ["_b_", "baseline", ({ update }) => update.baseline],
    ["_J_′", "mean reward after the step", (s) => s.J],
    ["KL(_q_‖_p_)", "divergence of the new policy from the old", (s) => s.kl],
    ["KL(_p_‖_q_)", "divergence of the old policy from the new", (s) => s.reverseKl],
    ["χ²(_q_‖_p_)", "chi-square of the new policy from the old", (s) => s.chi2],
  ];

  function drawNumbers({ steps, failed }) {
    const make = (name, attributes, ...children) => {
      const node = document.createElement(name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      node.append(...children);
      return node;
    };
    const head = make("tr", {}, make("td", {}), ...steps.map(({ law }) => make("th", { scope: "col" }, sample(law), law.name)));
    const body = ROWS.map(([symbol, words, value]) => make("tr", {},
      make("th", { scope: "row", title: words, "aria-label": words },
        ...symbol.split("_").map((part, i) => (i % 2 ? make("var", {}, part) : part))),
      ...steps.map((s) => make("td", {
        "data-law": s.law.id, "data-row": symbol.replaceAll("_", ""), "data-value": value(s),
      }, format(value(s), 5)))));
    $("numbers").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
    $("view-numbers").classList.toggle("wide", steps.length > 3);
    const local = steps.filter(({ update }) => update.weight < 0).map(({ law }) => law.name);
    $("numbers-note").textContent = [
      local.length ? `λ < 0 (${local.join(", ")}): only a local solution of its regression (Statement 11).` : "",
      failed.length ? `Beyond what this page can compute here: ${failed.join(", ")}.` : "",
    ].join(" ").trim();
  }

  let announcement;

  /** Tell a screen reader the numbers once they have come to rest. */
  function announce({ J, steps }) {
    clearTimeout(announcement);
    announcement = setTimeout(() => {
      $("status").textContent = `Mean reward ${brief(J)}, after the step ${names(steps, (s) => brief(s.J))}; lambda ${
        names(steps, (s) => brief(s.update.weight))}.`;
    }, 400);
  }

  /* ---------- inputs ---------- */

  const slider = (id, position, text) => {
    $(id).value = position;
    $(id).setAttribute("aria-valuetext", text);
  };

  function showSettings({ r, J }) {
    slider("J", clamp(charts.logit(shareOf(r, J)) / Math.LN10, [-4, 4]), brief(J, 4));
    slider("tau", Math.log10(state.tau), brief(state.tau));
    slider("K", state.K, String(state.K));
    slider("n", state.n, String(state.n));
    $("n-number").textContent = state.n;
    for (const [id, value] of [["J-number", J], ["tau-number", state.tau]]) {
      if (document.activeElement !== $(id)) $(id).value = exactly(value);
    }
    $("K-number").textContent = state.K;
    $("rewards").value = state.rewards;
    $("seed").value = state.seed;
    $("seed-row").hidden = state.rewards !== "random";
    document.querySelector("option[value=own]").hidden = state.rewards !== "own";
    for (const law of laws) {
      $(`law-${law.id}`).checked = state.laws.includes(law.id);
      const knob = KNOBS[law.id];
      if (!knob) continue;
      $(`knob-${law.id}`).closest(".slider").hidden = !state.laws.includes(law.id);
      slider(`knob-${law.id}`, knob.to(state[knob.key]), brief(state[knob.key]));
      $(`value-${law.id}`).textContent = knob.key === "b" ? knobText(r) : brief(state[knob.key]);
    }
  }

  const exactly = (x) => String(Number(x.toPrecision(x > 0.99 ? 15 : 6)));

  function knobText(r) {
    const b = updates.baselineAt(updates.evenPolicy(r, shareOf(r, state.J)), r, state.tau, state.b);
    return brief(b, 4);
  }

  function buildLaws() {
    for (const law of laws) {
      const item = document.createElement("div");
      item.className = "law-item";
      item.innerHTML = `<label><input type="checkbox" id="law-${law.id}"><span class="name"></span></label>`;
      item.querySelector("input").after(sample(law));
      item.querySelector(".name").append(law.name);
      const says = Object.assign(document.createElement("span"), { className: "hint", id: `says-${law.id}`, textContent: law.says });
      item.querySelector("input").setAttribute("aria-describedby", says.id);
      item.append(says);
      const knob = KNOBS[law.id];
      if (knob) {
        const row = document.createElement("div");
        row.className = "slider";
        row.innerHTML = `<label for="knob-${law.id}">${knob.label}</label>
          <input type="range" id="knob-${law.id}" min="${knob.low}" max="${knob.high}" step="${knob.step}">
          <output id="value-${law.id}" for="knob-${law.id}"></output>`;
        if (knob.ticks) {
          const ticks = Object.assign(document.createElement("div"), { className: "ticks" });
          ticks.setAttribute("aria-hidden", "true");
          ticks.innerHTML = knob.ticks.map(([x, text]) =>
            `<span style="left:${100 * (x - knob.low) / (knob.high - knob.low)}%">${text}</span>`).join("");
          row.append(ticks);
        }
        item.append(row);
        row.querySelector("input").addEventListener("input", (event) => set({ [knob.key]: clamp(knob.back(event.target.value), LIMITS[knob.key]) }));
      }
      $("laws").append(item);
      $(`law-${law.id}`).addEventListener("change", (event) => {
        const chosen = new Set(state.laws);
        if (event.target.checked) chosen.add(law.id);
        else chosen.delete(law.id);
        set({ laws: laws.map(({ id }) => id).filter((id) => chosen.has(id)) });
      });
    }
  }

  /** A number typed by hand: refused in one line if it is none or out of range. */
  function typed(id, key, name, allowed) {
    $(id).addEventListener("change", () => {
      const value = Number($(id).value.trim() || NaN), [low, high] = allowed(), inside = value >= low && value <= high;
      $(id).setAttribute("aria-invalid", String(!inside));
      $("message").textContent = inside ? "" : `${name} must be a number from ${brief(low)} to ${brief(high, 4)}.`;
      if (inside) set({ [key]: value });
    });
  }

  /** A mean reward from a share of the rewards' range. */
  function meanRewardFrom(part) {
    const r = rewardsOf(state), low = Math.min(...r), range = Math.max(...r) - low;
    return low === 0 && range === 1 ? part : low + range * part;
  }

  function setReward(action, value) {
    const own = rewardsOf(state).slice();
    own[action] = Math.round(clamp(value, [0, 1]) * 100) / 100;
    held = action;
    set({ rewards: "own", own });
  }

  function connect() {
    $("J").addEventListener("input", (event) => set({ J: meanRewardFrom(meanRewardAt(Number(event.target.value))) }));
    $("tau").addEventListener("input", (event) => set({ tau: raise(event.target.value) }));
    typed("J-number", "J", "J", () => {
      const r = rewardsOf(state);
      return [meanRewardFrom(LIMITS.J[0]), meanRewardFrom(LIMITS.J[1])].map((x) => clamp(x, [Math.min(...r), Math.max(...r)]));
    });
    typed("tau-number", "tau", "τ", () => LIMITS.tau);
    $("K").addEventListener("input", (event) => {
      const K = Number(event.target.value), own = Array.from({ length: K }, (_, i) => state.own[i] ?? 0);
      set(state.rewards === "own" ? { K, own } : { K });
    });
    $("n").addEventListener("input", (event) => set({ n: Number(event.target.value) }));
    $("rewards").addEventListener("change", (event) => set({ rewards: event.target.value }));
    $("seed").addEventListener("input", (event) => {
      const seed = Number(event.target.value);
      if (event.target.value !== "" && Number.isInteger(seed) && seed >= 0 && seed <= 9999) set({ seed });
    });
    $("reset").addEventListener("click", () => set({ ...DEFAULTS }));
    $("settings").addEventListener("submit", (event) => event.preventDefault());
    for (const button of document.querySelectorAll("[data-try]")) {
      button.addEventListener("click", () => tries[button.dataset.try]());
    }

    $("bars").addEventListener("keydown", (event) => {
      const r = rewardsOf(state), move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const change = { ArrowUp: 0.05, ArrowDown: -0.05, PageUp: 0.25, PageDown: -0.25 }[event.key];
      const end = { Home: 0, End: 1 }[event.key];
      if (move === undefined && change === undefined && end === undefined) return;
      event.preventDefault();
      if (move === undefined) setReward(held, end ?? r[held] + change);
      else {
        held = clamp(held + move, [0, r.length - 1]);
        drawRewards(r);
      }
    });
    drag($("bars"), (x, y) => {
      const { X, Y } = $("bars").scales;
      setReward(clamp(Math.floor(X.back(x)), [0, state.K - 1]), Y.back(y));
    });
    for (const id of ["weight", "failures"]) {
      drag($(id), (x) => {
        const position = charts.logit(clamp($(id).scales.X.back(x), [1e-4, 1 - 1e-4])) / Math.LN10;
        set({ J: meanRewardFrom(meanRewardAt(position)) });
      });
    }
    window.addEventListener("hashchange", () => {
      if (location.hash !== shown) set(read(location.hash));
    });
    new ResizeObserver(() => set({})).observe($("views"));
  }

  /** Call `place(x, y)` with pixels of an <svg> while a pointer is held on it. */
  function drag(svg, place) {
    const surface = svg.parentElement;
    const tell = (event) => {
      const corner = svg.getBoundingClientRect();
      place(event.clientX - corner.left, event.clientY - corner.top);
    };
    surface.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      stop();
      surface.setPointerCapture(event.pointerId);
      tell(event);
    });
    surface.addEventListener("pointermove", (event) => {
      if (surface.hasPointerCapture(event.pointerId)) tell(event);
    });
  }

  /* ---------- things to try ---------- */

  let motion;

  function stop() {
    cancelAnimationFrame(motion);
  }

  /** Go to some settings: numbers glide there, unless the reader prefers less motion. */
  function glide(first, last, milliseconds = 1200) {
    stop();
    set({ ...DEFAULTS, ...first });
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      set(last);
      return;
    }
    const from = { ...state }, paths = {
      J: [(x) => charts.logit(x), (u) => 1 / (1 + Math.exp(-u))], tau: [Math.log, Math.exp], b: [(x) => x, (x) => x],
    };
    let start;
    const tick = (now) => {
      start ??= now;
      const t = Math.min(1, (now - start) / milliseconds), eased = t * t * (3 - 2 * t);
      if (t === 1) {
        set(last);
        return;
      }
      set(Object.fromEntries(Object.keys(last).map((key) => {
        const [to, back] = paths[key];
        return [key, back(to(from[key]) + eased * (to(last[key]) - to(from[key])))];
      })));
      motion = requestAnimationFrame(tick);
    };
    motion = requestAnimationFrame(tick);
  }

  const tries = {
    rare: () => glide({ J: 0.5, tau: 0.1 }, { J: 0.05 }),
    knob: () => glide({ tau: 0.2, rewards: "graded", J: 0.3, laws: ["kl", "pmd-mean", "baseline"], b: 0 }, { b: 1.5 }, 2400),
    cold: () => glide({ rewards: "graded", J: 0.5, tau: 1 }, { tau: 0.01 }),
  };

  /* ---------- drawing ---------- */

  let drawn = false;

  function draw() {
    drawn = true;
    const all = solved(state);
    showSettings(all);
    legends(all.steps);
    drawPolicies(all, state);
    drawRatio(all, state);
    drawWeight(all, state);
    drawFailures(all, state);
    drawRollouts(all, state);
    drawNumbers(all);
    announce(all);
    remember();
  }

  /** Change settings and draw, once a frame. */
  function set(changes) {
    if ("rewards" in changes && changes.rewards === "own" && !changes.own) changes.own = rewardsOf(state).slice();
    state = { ...state, ...changes };
    if (drawn) requestAnimationFrame(draw);
    drawn = false;
  }

  buildLaws();
  state = read(location.hash);
  connect();
  draw();
  return { get state() { return { ...state }; }, solved: () => solved(state), read, written };
})();
