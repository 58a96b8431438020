/*
What can be set: the settings with their limits, the rewards of each preset, and the settings as the end of an address.
*/
"use strict";

const settings = (() => {
  const DEFAULTS = {
    J: 0.25, tau: 0.2, K: 8, rewards: "binary", seed: 1, own: [], laws: ["kl", "pmd-mean"], b: 0.5, kappa: 0.1, beta: 3,
    n: 8,
    held: 0,  // the action whose reward the keys change; not in the address
  };
  const LIMITS = {
    J: [1e-9, 1 - 1e-9], tau: [1e-3, 100], K: [2, 50], seed: [0, 9999], b: [-0.99, 2], kappa: [1e-3, 100],
    beta: [1, 1000], n: [2, 64],
  };
  const WHOLE = ["K", "seed", "n"];
  const PRESETS = ["binary", "graded", "rare", "random"];

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

  /** The settings that are not the defaults, as the end of an address. */
  function written(chosen) {
    const parts = [];
    for (const key of ["J", "tau", "K", "rewards", "seed", "laws", "b", "kappa", "beta", "n"]) {
      const value = key === "rewards" && chosen.rewards === "own" ? chosen.own : chosen[key];
      if (String(value) !== String(DEFAULTS[key])) parts.push(`${key}=${value}`);
    }
    return parts.length ? `#${parts.join("&")}` : "";
  }

  /** Settings of the end of an address; what cannot be read is left at its default. */
  function read(hash) {
    const found = { ...DEFAULTS };
    for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
      const number = Number(text || NaN);
      const accepted = WHOLE.includes(key) ? Number.isInteger(number) : Number.isFinite(number);
      if (key in LIMITS && accepted) found[key] = clamp(number, LIMITS[key]);
      if (key === "laws") found.laws = laws.map((law) => law.id).filter((id) => text.split(",").includes(id));
      if (key !== "rewards") continue;
      const own = text.split(",").map((part) => Math.round(Number(part) * 1e4) / 1e4);
      const allowed = own.every((x) => x >= 0 && x <= 1) && own.length === clamp(own.length, LIMITS.K);
      if (PRESETS.includes(text)) found.rewards = text;
      else if (allowed) Object.assign(found, { rewards: "own", own });
    }
    if (found.rewards === "own") found.K = found.own.length;
    return found;
  }

  return { DEFAULTS, LIMITS, clamp, meanRewardAt, read, rewardsOf, shareOf, written };
})();
