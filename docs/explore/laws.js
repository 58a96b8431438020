/*
The laws that the page draws. Colours are those of pmdtheory/plotting.py and figures/marks.py, which tests/browser holds
them to; a mark and a dash tell them apart without colour. `update(p, r, settings)` is one of updates.js.
*/
"use strict";

const laws = [
  {
    id: "kl", name: "KL update", colour: "#0072B2", dash: "7 4", mark: "circle",
    says: "the ideal step, b = τ log Z and λ = 0", update: (p, r, { tau }) => updates.kl(p, r, tau),
  },
  {
    id: "pmd-mean", name: "PMD-mean", colour: "#D55E00", dash: "", mark: "disc",
    says: "b is the mean reward", update: (p, r, { tau }) => updates.pmdMean(p, r, tau),
  },
  {
    id: "baseline", name: "any baseline", colour: "#56B4E9", dash: "9 3 2 3", mark: "square",
    says: "b from frozen to overshooting", update: (p, r, { tau, b }) => updates.knob(p, r, tau, b),
  },
  {
    id: "fixed-chi2", name: "fixed χ²", colour: "#44AA99", dash: "", mark: "diamond",
    says: "a penalty κ/2 · χ² that does not adapt", update: (p, r, { tau, kappa }) => updates.mixed(p, r, tau, kappa),
  },
  {
    id: "two-temperatures", name: "two temperatures", colour: "#E69F00", dash: "", mark: "triangle",
    says: "b = β₁ log E e^(r/β₁), another temperature for the value",
    update: (p, r, { tau, beta }) => updates.twoTemperatures(p, r, tau, beta * tau),
  },
  {
    id: "standardised", name: "standardised", colour: "#009E73", dash: "", mark: "wedge",
    says: "PMD-mean with rewards in standard deviations", update: (p, r, { tau }) => updates.standardised(p, r, tau),
  },
  {
    id: "quantile", name: "ranked rewards", colour: "#CC79A7", dash: "", mark: "cross",
    says: "rewards replaced by their ranks P(r′ ≤ r)", update: (p, r, { tau }) => updates.ranked(p, r, tau),
  },
];

if (typeof module !== "undefined") module.exports = laws;
