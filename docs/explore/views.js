/*
The five views and the table. `views.solve` computes every chosen law at some settings, `views.draw` shows it.
*/
"use strict";

const views = (() => {
  const { brief, el, format, frame, lawLine, line, mark } = charts;
  const { LIMITS, clamp, rewardsOf, shareOf } = settings;
  const $ = (id) => document.getElementById(id);

  /** One law at one policy: the update, its divergences and its mean reward; null where it has none. */
  function step(law, p, r, state) {
    try {
      const update = law.update(p, r, state);
      return { law, update, ...updates.movement(p, update.logRatio), J: updates.mean(update.policy, r) };
    } catch {
      return null;
    }
  }

  /** Rewards, policy, its mean reward, and the step of each law that is drawn. */
  function solve(state) {
    const r = rewardsOf(state), p = updates.evenPolicy(r, shareOf(r, state.J));
    const drawn = laws.filter((law) => state.laws.includes(law.id));
    const steps = drawn.map((law) => step(law, p, r, state));
    const failed = drawn.filter((_, i) => !steps[i]).map((law) => law.name);
    return { r, p, J: updates.mean(p, r), steps: steps.filter(Boolean), failed };
  }

  const GRID = Array.from({ length: 81 }, (_, i) => 1 / (1 + 10 ** (4 - i / 10)));

  /** Distinct rewards and how many actions have each: actions of equal reward have equal ratios. */
  function levelsOf(r) {
    const values = [...new Set(r)].sort((x, y) => x - y);
    return { values, counts: values.map((value) => r.filter((x) => x === value).length) };
  }

  /** Each law along the mean reward, for these rewards. */
  function along(r, drawn, state) {
    const { values, counts } = levelsOf(r);
    if (values.length < 2) return { x: [], curves: drawn.map((law) => ({ law, steps: [] })), p: [], values };
    const low = values[0], range = values.at(-1) - low;
    const p = GRID.map((share) => {
      const own = updates.evenPolicy(r, share);
      return values.map((value, i) => own[r.indexOf(value)] * counts[i]);
    });
    const curves = drawn.map((law) => ({ law, steps: p.map((policy) => step(law, policy, values, state)) }));
    return { x: GRID.map((share) => low + range * share), p, curves, values };
  }

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

  function drawPolicies({ r, p, J, steps }, { held }) {
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
    drawRewards(r, Math.min(held, K - 1));
  }

  function drawRewards(r, held) {
    const svg = $("bars"), focused = svg.contains(document.activeElement);
    const K = r.length;
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
    if (focused) svg.querySelector("[tabindex='0']").focus({ preventScroll: true });
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

  function drawWeight({ r, J, steps }, state) {
    const { tau } = state, low = Math.min(...r), range = Math.max(...r) - low;
    const { x, p: policies, curves, values } = along(r, steps.map(({ law }) => law), state);
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

  function drawFailures({ r, J, steps }, state) {
    const { tau } = state, success = shareOf(r, J), drawn = steps.map(({ law }) => law);
    const kept = (law, rate) => {
      const found = step(law, [1 - rate, rate], [0, 1], state);
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
    for (const law of drawn) {
      front.append(lawLine(GRID.map((rate) => [X(rate), Y(kept(law, rate))]), law));
      const now = kept(law, success);
      if (now >= bottom) front.append(mark(X(success), Y(now), law));
    }
    const below = drawn.filter((law) => kept(law, success) < bottom);
    if (below.length) {
      front.append(el("text", { class: "note", x: X(success) + (success > 0.5 ? -10 : 10), y: box.bottom - 8,
        "text-anchor": success > 0.5 ? "end" : "start" }, `↓ ${below.length > 3 ? `${below.length} laws` : below.map((law) => law.name).join(", ")}`));
    }
    const [least, most] = updates.failureBounds(success, tau);
    const binary = r.every((x) => x === 0 || x === 1);
    $("failures-reading").textContent = `At success rate ${brief(success)}${binary ? "" : ", for rewards 0 and 1,"} there remain ${
      names(drawn.map((law) => ({ law, left: kept(law, success) })), (s) => share(s.left)) || "–"}. ${
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

  /** Draw everything. */
  function draw(all, state) {
    legends(all.steps);
    drawPolicies(all, state);
    drawRatio(all, state);
    drawWeight(all, state);
    drawFailures(all, state);
    drawRollouts(all, state);
    drawNumbers(all);
  }

  /** The numbers in one sentence. */
  const inWords = ({ J, steps }) => `Mean reward ${brief(J)}, after the step ${names(steps, (s) => brief(s.J))}; lambda ${
    names(steps, (s) => brief(s.update.weight))}.`;

  return { draw, inWords, sample, solve };
})();
