/*
The five views and the table. `views.solve` computes the chosen laws at some settings, `views.draw` shows them.
*/
"use strict";

const views = (() => {
  const { brief, el, format, frame, lawLine, line, mark } = charts;
  const { rewardsOf, shareOf } = settings;
  const $ = (id) => document.getElementById(id);
  const lawCalled = (id) => laws.find((law) => law.id === id);
  const stepOf = (steps, id) => steps.find(({ law }) => law.id === id);

  /* ---------- what is drawn ---------- */

  /** One law at one policy: the update, its divergences and its mean reward; null where it cannot be computed. */
  function step(law, p, r, state) {
    try {
      const update = law.update(p, r, state);
      return { law, update, ...updates.movement(p, update.logRatio), J: updates.mean(update.policy, r) };
    } catch {
      return null;
    }
  }

  /** Rewards, policy, its mean reward, the step of each chosen law, and the names of those without. */
  function solve(state) {
    const r = rewardsOf(state), p = updates.evenPolicy(r, shareOf(r, state.J));
    const chosen = laws.filter((law) => state.laws.includes(law.id));
    const steps = chosen.map((law) => step(law, p, r, state));
    const failed = chosen.filter((_, i) => !steps[i]).map((law) => law.name);
    return { r, p, J: updates.mean(p, r), steps: steps.filter(Boolean), failed };
  }

  /** Success rates, or shares of the rewards' range, of the charts over the mean reward. */
  const GRID = Array.from({ length: 81 }, (_, i) => 1 / (1 + 10 ** (4 - i / 10)));

  const levelsOf = (r) => [...new Set(r)].sort((x, y) => x - y);

  /** The policies of the grid, over the distinct rewards: actions of equal reward have equal ratios. */
  function policiesAlong(r) {
    const levels = levelsOf(r), counts = levels.map((level) => r.filter((x) => x === level).length);
    return GRID.map((share) => {
      const p = updates.evenPolicy(r, share);
      return levels.map((level, k) => p[r.indexOf(level)] * counts[k]);
    });
  }

  /* ---------- words ---------- */

  /** "0.98 (KL update) and 0.82 (PMD-mean)" from [law, text] pairs. */
  function listed(pairs) {
    const parts = pairs.map(([law, text]) => `${text} (${law.name})`);
    return parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}` : parts.join("") || "no law";
  }

  const percent = (x) => `${brief(100 * x, x >= 0.0995 ? 3 : 2)}\u202f%`;

  /** The numbers in one sentence. */
  function inWords({ J, steps }) {
    const after = listed(steps.map((s) => [s.law, brief(s.J)]));
    const weights = listed(steps.map((s) => [s.law, brief(s.update.weight)]));
    return `Mean reward ${brief(J)}; after the step ${after}. Lambda ${weights}.`;
  }

  /* ---------- legends ---------- */

  /** A law's mark on its line, as in the charts. */
  const sample = (law) => el("svg", { width: 30, height: 12, "aria-hidden": "true", class: "sample" },
    lawLine([[1, 6], [29, 6]], law), mark(15, 6, law, 4.2));

  /** The mark alone. */
  const dot = (law) => el("svg", { width: 14, height: 12, "aria-hidden": "true", class: "sample" },
    mark(7, 6, law, 4.2));

  /** Say what the marks of a view stand for: [picture, text] pairs. */
  function legend(view, entries) {
    $(`view-${view}`).querySelector(".legend").replaceChildren(...entries.map(([picture, text]) => {
      const item = document.createElement("span");
      item.append(picture, text);
      return item;
    }));
  }

  /* ---------- the views ---------- */

  /** Where each of K actions stands: `at(i)` is the left end of its slot. */
  function slots(box, K) {
    const width = (box.right - box.left) / K;
    return { width, at: (i) => box.left + i * width };
  }

  function drawPolicies({ r, p, J, steps }) {
    const K = p.length, top = Math.max(...p, ...steps.flatMap(({ update }) => update.policy));
    const { back, front, box, Y } = frame($("policies"), {
      x: { domain: [0, K], ticks: [] }, y: { domain: [0, top * 1.05], label: "probability" }, height: 250,
    });
    const { width, at } = slots(box, K), gap = Math.min(width * 0.16, 14);
    const bar = (width - gap) / Math.max(steps.length, 1), inset = Math.min(1.5, bar * 0.12);
    const column = (x, breadth, value, name) => el("rect", {
      class: name, x, width: breadth, y: Y(value), height: Math.max(box.bottom - Y(value), 0.8),
    });
    back.append(...p.map((value, i) => column(at(i) + gap / 4, width - gap / 2, value, "before")));
    steps.forEach(({ law, update }, j) => {
      if (bar >= 3) {
        const place = (i) => at(i) + gap / 2 + j * bar + inset;
        const columns = update.policy.map((value, i) => column(place(i), bar - 2 * inset, value, "after"));
        front.append(el("g", { "data-law": law.id, fill: law.colour }, ...columns));
      } else {  // too narrow for bars: one level line over the actions
        const ends = (value, i) => [[at(i) + gap / 4, Y(value)], [at(i + 1) - gap / 4, Y(value)]];
        front.append(lawLine(update.policy.flatMap(ends), law));
      }
    });
    const before = Object.assign(document.createElement("i"), { className: "before" });
    legend("policies", [[before, "before, p"], ...steps.map(({ law }) => [sample(law), law.name])]);
    const after = listed(steps.map((s) => [s.law, brief(s.J)]));
    $("policies-reading").textContent = `The mean reward is ${brief(J)} before the step and ${after} after it.`;
  }

  /** The rewards, a slider each; `held` is the one that the keyboard reaches. */
  function drawRewards({ r }, { held }) {
    const svg = $("bars"), focused = svg.contains(document.activeElement), K = r.length;
    const { Y, front, box } = frame(svg, {
      x: { domain: [0, K], ticks: [], label: "action (drag a bar, or use the arrow keys)" },
      y: { domain: [0, 1], ticks: [0, 1], label: "_r_" }, height: 112,
    });
    const { width, at } = slots(box, K), inset = Math.min(width * 0.12, 6);
    const every = [1, 2, 5, 10].find((n) => n * width >= 26) ?? 25;
    r.forEach((reward, i) => {
      const handle = el("g", {
        role: "slider", tabindex: i === Math.min(held, K - 1) ? "0" : "-1", class: "handle", "data-action": i,
        "aria-valuemin": "0", "aria-valuemax": "1", "aria-valuenow": reward, "aria-label": `Reward of action ${i + 1}`,
      });
      const inside = { x: at(i) + inset, width: width - 2 * inset }, y = Y(reward);
      handle.append(
        el("rect", { class: "room", x: at(i), width, y: box.top, height: box.bottom - box.top }),
        el("rect", { class: "reward", ...inside, y: y - 1, height: box.bottom - y + 1 }),
        el("line", { class: "grip", x1: inside.x, x2: inside.x + inside.width, y1: y, y2: y }),
      );
      front.append(handle);
      if (i > 0 && (i + 1) % every) return;
      svg.append(el("text", { x: at(i + 0.5), y: box.bottom + 16, "text-anchor": "middle" }, String(i + 1)));
    });
    if (focused) svg.querySelector("[tabindex='0']").focus({ preventScroll: true });
  }

  function drawRatio({ r, J, steps }, { tau }) {
    const levels = levelsOf(r), low = levels[0], high = levels.at(-1);
    const ratio = (update, level) => tau * update.logRatio[r.indexOf(level)];
    const between = ({ baseline, tau: own, weight }, x) => tau * updates.ratioAt((x - baseline) / own, weight);
    const samples = Array.from({ length: 81 }, (_, i) => low + (high - low) * i / 80);
    const curves = steps.map(({ law, update }) => ({  // a rank is no function of the reward between the levels
      law, update, points: law.id === "quantile"
        ? levels.map((level) => [level, ratio(update, level)])
        : samples.map((x) => [x, between(update, x)]),
    }));
    const all = curves.flatMap(({ points }) => points.map(([, y]) => y)).filter(Number.isFinite);
    const bottom = Math.min(0, ...all), top = Math.max(0, ...all), room = Math.max((top - bottom) * 0.06, 1e-12);
    const { X, Y, back, front, box } = frame($("ratio"), {
      x: { domain: [-0.02, 1.02], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], label: "reward _r_" },
      y: { domain: [bottom - room, top + room], label: "_τ_ log(_q_/_p_), in units of the reward" },
      height: 300,
    });
    const left = J > 0.8;
    back.append(
      el("line", { class: "zero", x1: box.left, x2: box.right, y1: Y(0), y2: Y(0) }),
      el("line", { class: "guide", x1: X(J), x2: X(J), y1: box.top, y2: box.bottom }),
      el("text", { class: "note", x: X(J) + (left ? -5 : 5), y: box.bottom - 6, "text-anchor": left ? "end" : "start" },
        "mean reward"),
    );
    for (const { law, update, points } of curves) {
      front.append(lawLine(points.map(([x, y]) => [X(x), Y(y)]), law));
      let last = -Infinity;
      for (const level of levels) {  // so few marks that the line is still seen
        if (X(level) < last + 24 && level < high) continue;
        last = X(level);
        front.append(mark(last, Y(ratio(update, level)), law));
      }
    }
    legend("ratio", steps.map(({ law }) => [sample(law), law.name]));
    const bent = stepOf(steps, "pmd-mean")?.update;
    const slope = (level) => brief(1 / (1 + bent.weight * Math.exp(bent.logRatio[r.indexOf(level)])));
    const straight = "A KL update has slope 1 everywhere.";
    $("ratio-reading").textContent = low === high ? "All rewards are equal: nothing moves."
      : !bent ? straight
      : `${straight} PMD-mean has slope 1/(1 + λρ), ρ = q/p: ${slope(low)} at the lowest reward and ${slope(high)} ` +
        "at the highest.";
  }

  function drawWeight({ r, J, steps }, state) {
    const { tau } = state, levels = levelsOf(r), low = levels[0], range = levels.at(-1) - low;
    const height = ({ update }) => update.tau * update.weight;
    const policies = range > 0 ? policiesAlong(r) : [];
    const bound = policies.map((p) => {
      const mean = updates.mean(p, levels), deviation = Math.sqrt(updates.mean(p, levels.map((x) => (x - mean) ** 2)));
      return Math.min(deviation / 2, tau * updates.jensenGap(p, levels, tau));
    });
    const top = 1.25 * Math.max(1e-12, ...bound), bottom = Math.max(-top, Math.min(0, ...steps.map(height)));
    const { X, Y, back, front, box } = frame($("weight"), {
      x: {
        scale: "logit", domain: [1e-4, 1 - 1e-4], label: "mean reward _J_ (drag to change it)",
        format: (x) => brief(low + range * x, 4),
      },
      y: { domain: [bottom, top], label: "_τλ_, in units of the reward" },
      height: 300,
    });
    const here = X(shareOf(r, J));
    back.append(el("line", { class: "guide", x1: here, x2: here, y1: box.top, y2: box.bottom }));
    back.append(line(bound.map((y, i) => [X(GRID[i]), Y(y)]), { class: "bound" }));
    for (const { law } of steps) {
      const curve = policies.map((p) => step(law, p, levels, state));
      front.append(lawLine(curve.map((s, i) => [X(GRID[i]), s ? Y(height(s)) : NaN]), law));
    }
    const above = steps.filter((s) => height(s) > top);
    above.forEach((s, i) => front.append(el("text", { class: "note", x: here + 8, y: box.top + 8 + 14 * i },
      `↑ ${s.law.name}: ${brief(height(s))}`)));
    front.append(...steps.filter((s) => !above.includes(s)).map((s) => mark(here, Y(height(s)), s.law)));
    const mean = stepOf(steps, "pmd-mean");
    if (mean) front.append(el("circle", { class: "check", cx: here, cy: Y(tau * mean.reverseKl), r: 8 }));
    legend("weight", steps.map(({ law }) => [sample(law), law.name]));
    $("weight-reading").textContent = [
      mean ? `PMD-mean has λ = ${format(mean.update.weight, 7)} from the root, and KL(p‖q) = ` +
        `${format(mean.reverseKl, 7)} from the two policies (ring), as Statement 4 says.` : "",
      "Dotted: PMD-mean's bound, the smaller of the Jensen gap and half a standard deviation (Statement 6).",
      stepOf(steps, "quantile") ? "Ranked rewards are in units of a rank." : "",
    ].join(" ").trim();
  }

  function drawFailures({ r, J, steps }, state) {
    const { tau } = state, success = shareOf(r, J), chosen = steps.map(({ law }) => law);
    const kept = (law, rate) => {
      const found = step(law, [1 - rate, rate], [0, 1], state);
      return found ? updates.failureFactor(found.update) : NaN;
    };
    const lowest = Math.floor(Math.log10(updates.failureBounds(1, tau)[0]));
    const bottom = 10 ** settings.clamp(lowest, [-6, -1]);
    const { X, Y, back, front, box } = frame($("failures"), {
      x: { scale: "logit", domain: [1e-4, 1 - 1e-4], label: "success rate _J_ (drag to change it)" },
      y: { scale: "log", domain: [bottom, 1.3], label: "share of the failures that is left, (1 − _J_′)/(1 − _J_)" },
      height: 300,
    });
    const mean = stepOf(steps, "pmd-mean");
    if (mean) {
      const edge = (k) => GRID.map((rate) => [X(rate), Y(updates.failureBounds(rate, tau)[k])]);
      back.append(line([...edge(1), ...edge(0).reverse()], { class: "band" }));
    }
    back.append(el("line", { class: "guide", x1: X(success), x2: X(success), y1: box.top, y2: box.bottom }));
    for (const law of chosen) front.append(lawLine(GRID.map((rate) => [X(rate), Y(kept(law, rate))]), law));
    const now = chosen.map((law) => [law, kept(law, success)]);
    front.append(...now.filter(([, left]) => left >= bottom).map(([law, left]) => mark(X(success), Y(left), law)));
    const below = now.filter(([, left]) => left < bottom).map(([law]) => law.name);
    if (below.length) {
      const side = success > 0.5 ? { x: X(success) - 10, "text-anchor": "end" } : { x: X(success) + 10 };
      const who = below.length > 3 ? `${below.length} laws` : below.join(", ");
      front.append(el("text", { class: "note", y: box.bottom - 8, ...side }, `↓ ${who}`));
    }
    legend("failures", chosen.map((law) => [sample(law), law.name]));
    const binary = r.every((x) => x === 0 || x === 1), [least, most] = updates.failureBounds(success, tau);
    $("failures-reading").textContent = [
      `At success rate ${brief(success)}${binary ? "" : ", for rewards 0 and 1,"} there remain`,
      `${listed(now.map(([law, left]) => [law, percent(left)]))}.`,
      mean ? `Shaded: PMD-mean's bounds, ${percent(least)} to ${percent(most)} (Statement 9).` : "",
    ].join(" ").trim();
  }

  function drawRollouts({ r, J }, { tau, n }) {
    const success = shareOf(r, J), rows = updates.estimates(success, tau, n);
    const top = Math.max(...rows.map(({ chance }) => chance));
    const { X, Y, back, front, box } = frame($("rollouts"), {
      x: {
        domain: [-0.03, 1.03], ticks: [0, 0.2, 0.4, 0.6, 0.8, 1], label: "estimated baseline, in units of the reward",
      },
      y: { domain: [0, 1.12 * top], label: "probability" },
      height: 300,
    });
    const ideal = updates.kl([1 - success, success], [0, 1], tau).baseline;
    const estimators = [
      { law: lawCalled("kl"), key: "logPartition", target: ideal, text: "τ log Ẑ of the rollouts" },
      { law: lawCalled("pmd-mean"), key: "mean", target: success, text: "mean reward of the rollouts" },
    ];
    for (const { law, key, target } of estimators) {
      back.append(line([[X(target), box.top], [X(target), box.bottom]], { class: "target", stroke: law.colour }));
      for (const row of rows.filter(({ chance }) => chance >= 1e-3 * top)) {
        const x = X(row[key]), y = Y(row.chance);
        const stem = line([[x, Y(0)], [x, y]], { class: "stem", stroke: law.colour });
        front.append(stem, mark(x, y, law, n > 24 ? 3.2 : 4.5));
      }
    }
    legend("rollouts", estimators.map(({ law, text }) => [dot(law), text]).reverse());
    const [ofLog, ofMean] = estimators.map(({ key, target }) => brief(
      Math.sqrt(rows.reduce((total, row) => total + row.chance * (row[key] - target) ** 2, 0)), 2));
    $("rollouts-reading").textContent = [
      `Vertical lines: what they estimate, J = ${brief(success)} and τ log Z = ${brief(ideal)}.`,
      `Their root mean square errors are ${ofMean} and ${ofLog}.`,
      `With probability ${brief(rows[0].chance, 2)} no rollout succeeds, and both estimates are 0 (Statement 12).`,
    ].join(" ");
  }

  /* ---------- the table ---------- */

  /** Name, letters between underscores italic; how it reads for a screen reader; value. */
  const ROWS = [
    ["_λ_", "lambda, the weight of chi-square in units of tau", ({ update }) => update.weight],
    ["_τλ_", "tau lambda, the weight of chi-square in units of the reward", ({ update }) => update.tau * update.weight],
    ["_b_", "baseline", ({ update }) => update.baseline],
    ["_J_′", "mean reward after the step", (s) => s.J],
    ["KL(_q_‖_p_)", "divergence of the new policy from the old", (s) => s.kl],
    ["KL(_p_‖_q_)", "divergence of the old policy from the new", (s) => s.reverseKl],
    ["χ²(_q_‖_p_)", "chi-square of the new policy from the old", (s) => s.chi2],
  ];

  /** An HTML element with attributes and children. */
  function make(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function drawNumbers({ steps, failed }) {
    const heads = steps.map(({ law }) => make("th", { scope: "col" }, sample(law), law.name));
    const rows = ROWS.map(([symbol, words, valueOf]) => {
      const letters = symbol.split("_").map((part, i) => (i % 2 ? make("var", {}, part) : part));
      const cells = steps.map((s) => make("td", {
        "data-law": s.law.id, "data-row": symbol.replaceAll("_", ""), "data-value": valueOf(s),
      }, format(valueOf(s), 5)));
      return make("tr", {}, make("th", { scope: "row", title: words, "aria-label": words }, ...letters), ...cells);
    });
    $("numbers").replaceChildren(
      make("thead", {}, make("tr", {}, make("td", {}), ...heads)), make("tbody", {}, ...rows),
    );
    $("view-numbers").classList.toggle("wide", steps.length > 2);
    const local = steps.filter(({ update }) => update.weight < 0).map(({ law }) => law.name);
    $("numbers-note").textContent = [
      local.length ? `λ < 0 (${local.join(", ")}): only a local solution of its regression (Statement 11).` : "",
      failed.length ? `Beyond what this page can compute here: ${failed.join(", ")}.` : "",
    ].join(" ").trim();
  }

  /** Draw everything. */
  function draw(all, state) {
    drawPolicies(all);
    drawRewards(all, state);
    drawRatio(all, state);
    drawWeight(all, state);
    drawFailures(all, state);
    drawRollouts(all, state);
    drawNumbers(all);
  }

  return { draw, inWords, sample, solve };
})();
