/*
The page: its inputs, what they change, and drawing once a frame.
*/
"use strict";

const explore = (() => {
  const { brief } = charts;
  const { DEFAULTS, LIMITS, clamp, meanRewardAt, rewardsOf, shareOf } = settings;
  const $ = (id) => document.getElementById(id);

  const raise = (x) => Number((10 ** x).toPrecision(3));

  /** Knobs of laws: a range input at `to(value)`, which `back` inverts. */
  const KNOBS = {
    baseline: {
      key: "b", low: -0.99, high: 2, step: 0.01, to: (x) => x, back: (x) => Math.round(x * 100) / 100,
      label: "Baseline <var>b</var>",
      ticks: [[-0.99, "−∞"], [0, "mean"], [1, "<var>τ</var> log <var>Z</var>"], [2, "<var>b</var><sub>max</sub>"]],
    },
    "fixed-chi2": {
      key: "kappa", low: -3, high: 2, step: 0.02, to: Math.log10, back: raise, label: "Weight <var>κ</var>",
    },
    "two-temperatures": {
      key: "beta", low: 0, high: 3, step: 0.02, to: Math.log10, back: raise,
      label: "<var>β</var>₁ in units of <var>τ</var>",
    },
  };

  let state = { ...DEFAULTS };
  let shown = "";  // the end of the address that this page wrote last

  let rest;

  /** Once the settings have come to rest, tell a screen reader the numbers and write the address. */
  function settle(all) {
    clearTimeout(rest);
    rest = setTimeout(() => {
      $("status").textContent = views.inWords(all);
      shown = settings.written(state);
      history.replaceState(null, "", shown || location.pathname + location.search);
    }, 400);
  }

  /* ---------- inputs ---------- */

  /** Numbers as typed: six digits, but near 1 all of them. */
  const exactly = (x) => String(Number(x.toPrecision(x > 0.99 ? 15 : 6)));

  const slider = (id, position, text) => {
    $(id).value = position;
    $(id).setAttribute("aria-valuetext", text);
  };

  function showSettings({ r, p, J }) {
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
      $(`value-${law.id}`).textContent = knob.key === "b"
        ? brief(updates.baselineAt(p, r, state.tau, state.b), 4) : brief(state[knob.key]);
    }
  }

  function buildLaws() {
    for (const law of laws) {
      const item = document.createElement("div");
      item.className = "law-item";
      item.innerHTML = `<label><input type="checkbox" id="law-${law.id}"><span class="name"></span></label>`;
      item.querySelector("input").after(views.sample(law));
      item.querySelector(".name").append(law.name);
      const says = document.createElement("span");
      Object.assign(says, { className: "hint", id: `says-${law.id}`, textContent: law.says });
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
        row.querySelector("input").addEventListener("input", (event) => {
          set({ [knob.key]: clamp(knob.back(event.target.value), LIMITS[knob.key]) });
        });
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
    set({ rewards: "own", own, held: action });
  }

  function connect() {
    $("J").addEventListener("input", (event) => set({ J: meanRewardFrom(meanRewardAt(Number(event.target.value))) }));
    $("tau").addEventListener("input", (event) => set({ tau: raise(event.target.value) }));
    typed("J-number", "J", "J", () => {
      const r = rewardsOf(state), ends = [Math.min(...r), Math.max(...r)];
      return LIMITS.J.map((part) => clamp(meanRewardFrom(part), ends));
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
    $("reset").addEventListener("click", () => {
      stop();
      set({ ...DEFAULTS });
    });
    $("settings").addEventListener("input", stop, true);
    $("settings").addEventListener("submit", (event) => event.preventDefault());
    for (const button of document.querySelectorAll("[data-try]")) {
      button.addEventListener("click", () => tries[button.dataset.try]());
    }

    $("bars").addEventListener("keydown", (event) => {
      const r = rewardsOf(state), held = Math.min(state.held, r.length - 1);
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const change = { ArrowUp: 0.05, ArrowDown: -0.05, PageUp: 0.25, PageDown: -0.25 }[event.key];
      const end = { Home: 0, End: 1 }[event.key];
      if (move === undefined && change === undefined && end === undefined) return;
      event.preventDefault();
      stop();
      if (move === undefined) setReward(held, end ?? r[held] + change);
      else set({ held: clamp(held + move, [0, r.length - 1]) });
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
      if (location.hash !== shown) set(settings.read(location.hash));
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
    knob: () => glide({ rewards: "graded", J: 0.3, laws: ["kl", "pmd-mean", "baseline"], b: 0 }, { b: 1.5 }, 2400),
    cold: () => glide({ rewards: "graded", J: 0.5, tau: 1 }, { tau: 0.01 }),
  };

  /* ---------- drawing ---------- */

  let drawn = false;

  function draw() {
    drawn = true;
    const all = views.solve(state);
    showSettings(all);
    views.draw(all, state);
    settle(all);
  }

  /** Change settings and draw, once a frame. */
  function set(changes) {
    if ("rewards" in changes && changes.rewards === "own" && !changes.own) changes.own = rewardsOf(state).slice();
    state = { ...state, ...changes };
    if (drawn) requestAnimationFrame(draw);
    drawn = false;
  }

  buildLaws();
  state = settings.read(location.hash);
  connect();
  draw();
  return { get state() { return { ...state }; }, solved: () => views.solve(state) };
})();
