/*
Exact one-context updates of policy mirror descent in the browser: what pmdtheory/updates.py, solver.py,
overestimated.py and family/ compute, for one context at a time. A plain script, since pages opened from disk cannot
load modules: it defines the global `updates`, and `module.exports` in Node.

One context has a policy p over K actions, rewards r, a temperature τ. Every update q = p e^s solves

    s + λ e^s = (r − b)/τ,     E_p[e^s] = 1.                                                    (Statements 1, 2, 3, 10)

    kl          λ = 0, then b = τ log Z                  max E_q[r] − τ KL(q‖p)                           (Statement 1)
    pmdMean     b = E_p[r], then λ = KL(p‖q)             Kimi's regression on (r − mean)/τ        (Statements 2 and 4)
    mixed       λ = κ/τ                                  max E_q[r] − τ KL(q‖p) − (κ/2) χ²(q‖p)           (Statement 3)
    baseline    b given, up to b_max                     λ < 0 above τ log Z                     (Statements 10 and 11)

and of the family: twoTemperatures, b = β₁ log E_p e^{r/β₁} (Statement 22); standardised, PMD-mean at τ sd(r)
(Statement 25); ranked, rewards replaced by P(r' ≤ r) and the partition function of untied ranks (Statement 29).

The action of ratio e^s has s = Δ − ω(log λ + Δ), Δ = (r − b)/τ, ω the Wright omega function, ω(z) = W(e^z): Lambert's W
without overflow. Rewards are measured from the mean, D = (r − E_p[r])/τ, and with c = (b − E_p[r])/τ and v = λ + c the
equation reads s + λ (e^s − 1) = D − v, which keeps small steps exact. At the solution v = KL(p‖q), and

    E_p[e^s − 1 − s] − v = (1 + λ) (E_p[e^s] − 1)                                                     (Statement 2(b))

tells without cancellation on which side of the root v lies. For c ≤ 0, or λ given, v is found by Newton's method on
log E_p[e^s − 1 − s] − log v in log v; for c > 0, where λ = v − c would cancel, λ by Newton's method on 1/E_p[e^s]; far
above τ log Z the unknown is the distance from the branch point of W. All are kept inside a bracket (Statements 6, 10).

Statements: pmdtheory/theorems/README.md. Arguments are checked by whoever calls: p sums to 1, all p > 0, τ > 0.
*/
"use strict";

const updates = (() => {
  const TINY = Number.MIN_VALUE;
  const sum = (K, term) => {
    let total = 0;
    for (let i = 0; i < K; i++) total += term(i);
    return total;
  };
  const mean = (p, x) => sum(p.length, (i) => p[i] * x[i]);
  const modeOf = (x) => x.reduce((best, value, i) => (value > x[best] ? i : best), 0);

  /* ---------- functions of one number ---------- */

  const COEFFICIENTS = [];  // 1/2!, 1/3!, …
  for (let k = 2, factorial = 2; k < 12; factorial *= ++k) COEFFICIENTS.push(1 / factorial);

  /** e^s − 1 − s ≥ 0 with full relative accuracy. */
  function excess(s) {
    if (Math.abs(s) >= 0.1) return Math.expm1(s) - s;
    return s * s * COEFFICIENTS.reduceRight((total, c) => total * s + c, 0);
  }

  /** ω(z) = W(e^z), the ω > 0 with ω + log ω = z. */
  function wrightOmega(z) {
    if (z < -40) return Math.exp(z);
    const x = Math.exp(Math.min(z, 1));
    let omega = z <= 1
      ? x * (1 + x * (1.67666 + 0.351145 * x)) / (1 + x * (2.67666 + x * (1.53565 + 0.126332 * x)))
      : z - 4.21463 * ((z - 1) / (z + 7.82567));
    for (let k = 0; k < 3; k++) {  // fourth order (Fritsch, Shafer and Crowley)
      const r = z - omega - Math.log(omega);
      const u = 2 * (1 + omega) * (1 + omega + 2 * r / 3);
      omega *= 1 + r / (1 + omega) * (u - r) / (u - 2 * r);
    }
    return omega;
  }

  /** The s with s + λ (e^s − 1) = d; λ ≥ 0, or slightly negative with a nearby start. */
  function logRatio(d, weight, start) {
    if (weight === 0) return d;
    let s = start === undefined ? d + weight - wrightOmega(d + weight + Math.log(weight)) : start;
    for (let k = 0; k < 12; k++) {
      const growth = Math.expm1(s), u = weight * (growth + 1);
      const newton = (s + weight * growth - d) / (1 + u);
      const bend = newton * u / (1 + u);
      const step = newton * (1 - bend / 2) / (1 - bend + newton * bend / 6);
      s -= step;
      if (Math.abs(step) < 1e-4 * Math.min(1, Math.abs(s)) || Math.abs(step) < 1e-15) break;
    }
    return s;
  }

  /** U = −W₀(−e^{−1−t}), the U in (0, 1] with U − log U = 1 + t, t ≥ 0, and 1 − U: exact also near t = 0. */
  function principalBranch(t) {
    if (t < 0.02) {
      let y = Math.sqrt(2 * t);
      y = Math.max(y - y ** 2 / 3 + y ** 3 / 36 + y ** 4 / 270, 1e-300);
      if (y > 1e-3) {  // below, the series is exact, and what follows would cancel
        for (let k = 0; k < 2; k++) y += (Math.log1p(-y) + y + t) * (1 - y) / y;
      }
      return [1 - y, y];
    }
    let logU = -1 - t;
    for (let k = 0; k < 8; k++) logU -= (logU - Math.exp(logU) + 1 + t) / -Math.expm1(logU);
    return [Math.exp(logU), -Math.expm1(logU)];
  }

  /** The s ≤ −log(−λ) with s + λ e^s = target, any λ: what an update does to an action of that target. */
  function ratioAt(target, weight) {
    if (weight === 0) return target;
    if (weight > 0) return target - wrightOmega(Math.log(weight) + target);
    return target + principalBranch(Math.max(-1 - target - Math.log(-weight), 0))[0];
  }

  /* ---------- log-partition functions ---------- */

  /** log E_p[e^x] from E_p[f(x)], where f(x) = e^x − 1 up to terms of mean 0. */
  function logMean(p, x, f) {
    const growth = sum(p.length, (i) => (x[i] > 300 ? Math.exp(Math.log(p[i]) + x[i]) : p[i] * f(x[i])));
    if (growth > -0.5 && growth < Infinity) return Math.log1p(growth);
    const logits = x.map((value, i) => Math.log(p[i]) + value), top = Math.max(...logits);
    return top + Math.log(sum(p.length, (i) => Math.exp(logits[i] - top)));
  }

  /** log E_p[e^x], accurate where x = 0 has most of the mass. */
  const logMeanExp = (p, x) => logMean(p, x, Math.expm1);

  /** log E_p[e^D] ≥ 0 for E_p[D] = 0, accurate where it is tiny. */
  const jensenGap = (p, D) => logMean(p, D, excess);

  /* ---------- roots ---------- */

  /** Root inside a bracket: `propose(x)` gives [a number > 0 where the root is above x, where to go next]. */
  function find(propose, x, low, high) {
    let last = Infinity;
    for (let k = 0; k < 300; k++) {
      let [surplus, next] = propose(x);
      if (surplus === 0) return x;
      if (surplus > 0) low = x;
      else high = x;
      const inside = next >= low && next <= high;
      const step = Math.abs(next - x), size = Math.abs(next);
      // Small steps that stop shrinking are rounding.
      if (inside && (step <= 1e-15 * size || (step <= 1e-10 * size && step >= last / 2))) return next;
      if (!inside || (step > last / 2 && step > 1e-10 * size)) next = low === -Infinity ? high - 5 : (low + high) / 2;
      last = Math.abs(next - x);
      if (last <= 2e-16 * Math.abs(next)) return next;
      x = next;
    }
    throw new Error("a root was not found.");
  }

  /** D = (r − E_p[r])/τ, the reward r₀ of the most probable action, m = (E_p[r] − r₀)/τ. */
  function centredTargets(p, r, tau) {
    const top = r[modeOf(p)];
    const D = r.map((value) => (value - top) / tau);
    const m = mean(p, D);
    return { D: D.map((value) => value - m), top, m };
  }

  /** v = KL(p‖q) and s for λ = k v + a: k = 1 is a shift c = −a ≤ 0, k = 0 a weight a ≥ 0 that is given. */
  function belowTheMean(p, D, k, a) {
    const variance = mean(p, D.map((d) => d * d));
    const solution = (v) => D.map((d) => logRatio(d - v, k * v + a));
    const high = k ? Math.min(jensenGap(p, D), variance / (a + Math.sqrt(a * a + variance)) / 2) : jensenGap(p, D);
    const propose = (y) => {
      const v = Math.exp(y), weight = k * v + a;
      let psi = 0, slope = 0;
      D.forEach((d, i) => {
        const s = logRatio(d - v, weight), growth = Math.expm1(s);
        psi += p[i] * excess(s);
        slope -= p[i] * growth * (1 + k * growth) / (1 + weight * (1 + growth));
      });
      const value = Math.log(psi) - y;
      return [value, Math.max(y - value / (v * slope / psi - 1), y - 10)];
    };
    const top = Math.log(Math.max(high, TINY)) + 1e-12;
    const guess = Math.log(Math.max(variance, TINY)) - Math.log(2) - 2 * Math.log1p(a);
    const v = Math.exp(find(propose, Math.min(top, guess), -Infinity, top));
    return { s: solution(v), v };
  }

  /** λ and s by Newton's method on 1/E_p[e^s], for a shift c > 0; `ideal` is where λ = 0. */
  function aboveTheMean(p, target, c, start, low, high, ideal) {
    const near = (i, weight) => logRatio(target[i] - weight, weight, ideal && ideal[i]);
    const propose = (weight) => {
      const v = weight + c;
      let psi = 0, mass = 0, slope = 0, spread = 0;
      target.forEach((_, i) => {
        const s = near(i, weight), rho = Math.exp(s);
        psi += p[i] * excess(s);
        mass += p[i] * rho;
        slope += p[i] * rho * rho / (1 + weight * rho);
        spread += p[i] * rho * Math.abs(s);
      });
      const surplus = v < 0.01 ? (psi - v) / (1 + weight) : mass - 1;
      const noise = v < 1 ? 4e-16 * v : 4e-16 * (1 + spread);
      return [Math.abs(surplus) <= noise ? 0 : surplus, weight + surplus * mass / slope];
    };
    const weight = find(propose, start, low, high);
    return { s: target.map((_, i) => near(i, weight)), weight };
  }

  /** Principal branch far above τ log Z: the unknown y gives U = −λρ of the best action by U − log U = 1 + y²/2. */
  function onTheBranch(p, target) {
    const top = Math.max(...target);
    const at = (y) => target.map((t) => principalBranch(y * y / 2 + top - t));
    const propose = (y) => {
      const branch = at(y), s = target.map((t, i) => t + branch[i][0]);
      const value = logMeanExp(p, s);
      const slope = sum(p.length, (i) => p[i] * Math.exp(s[i] - value) * branch[i][0] / branch[i][1]);
      return [value, y + value / (y * slope)];
    };
    const y = find(propose, 1, 1e-9, 38);
    const s = at(y).map(([U], i) => target[i] + U), rest = logMeanExp(p, s);
    return { s: s.map((value) => value - rest), weight: -Math.exp(-1 - y * y / 2 - top) };
  }

  /** s and λ for a shift c of the baseline above the mean, in units of τ. */
  function withShift(p, D, c, target, rounding) {
    if (D.every((d) => d === 0)) return { s: D.slice(), weight: -c };
    if (c <= 0) {
      const { s, v } = belowTheMean(p, D, 1, -c);
      return { s, weight: v - c };
    }
    const logMass = c <= 1 ? jensenGap(p, D) - c : logMeanExp(p, target);
    const ideal = target.map((t) => t - logMass);
    if (Math.abs(logMass) <= rounding) return { s: ideal, weight: 0 };
    if (logMass > 0) {
      const deviation = Math.sqrt(mean(p, D.map((d) => d * d)));
      const high = Math.min(logMass, Math.max(...target), deviation * deviation / 2 / (c + Math.hypot(c, deviation)));
      return aboveTheMean(p, target, c, high, 0, high);
    }
    // To first order λ = log E_p[e^target]/E_p[ρ²] with the KL update's ρ; −λρ = 1 is the branch point.
    const rho = ideal.map((s) => Math.exp(s));
    const first = logMass / mean(p, rho.map((x) => x * x));
    if (-first * Math.max(...rho) < 1e-3) return aboveTheMean(p, target, c, first, 2 * first, 0, ideal);
    return onTheBranch(p, target);
  }

  /* ---------- updates: each returns {policy, logRatio, weight: λ, baseline: b, tau, reward: r} ---------- */

  function finish(p, r, tau, s, weight, baseline) {
    const raw = s.map((value, i) => Math.exp(Math.log(p[i]) + value));
    const mass = sum(p.length, (i) => raw[i]);
    if (!(Math.abs(mass - 1) < 1e-9)) throw new Error("the updated policy is not normalised.");
    return { policy: raw.map((x) => x / mass), logRatio: s, weight, baseline, tau, reward: r };
  }

  function kl(p, r, tau) {
    const logits = r.map((value, i) => Math.log(p[i]) + (value - Math.max(...r)) / tau);
    const mode = r[modeOf(logits)];
    const x = r.map((value) => (value - mode) / tau);
    const logZ = logMeanExp(p, x);
    return finish(p, r, tau, x.map((value) => value - logZ), 0, mode + tau * logZ);
  }

  function pmdMean(p, r, tau) {
    const { D, top, m } = centredTargets(p, r, tau);
    const { s, weight } = withShift(p, D, 0);
    return finish(p, r, tau, s, weight, top + tau * m);
  }

  function baseline(p, r, tau, b) {
    const { D, top, m } = centredTargets(p, r, tau);
    const rounding = 4e-16 * (Math.abs(b - top) / tau + Math.abs(m));
    const target = r.map((value) => (value - b) / tau);
    const { s, weight } = withShift(p, D, (b - top) / tau - m, target, rounding);
    return finish(p, r, tau, s, weight, b);
  }

  function mixed(p, r, tau, kappa) {
    const { D, top, m } = centredTargets(p, r, tau), a = kappa / tau;
    if (D.every((d) => d === 0)) return finish(p, r, tau, D, a, top + tau * (m - a));
    if (a === 0) return kl(p, r, tau);
    const { s, v } = belowTheMean(p, D, 0, a);
    return finish(p, r, tau, s, a, top + tau * (m + v - a));
  }

  /** b_max, the largest baseline with a solution on the principal branch. */
  function largestBaseline(p, r, tau) {
    const { D, top, m } = centredTargets(p, r, tau), most = Math.max(...D);
    return top + tau * (m + logMeanExp(p, D.map((d) => d + principalBranch(most - d)[0])));
  }

  /** The baseline at a position of the knob: −1 is −∞, 0 the mean, 1 τ log Z, 2 b_max, and linear between these. */
  function baselineAt(p, r, tau, position) {
    const average = pmdMeanBaseline(p, r, tau), ideal = kl(p, r, tau).baseline;
    if (position <= 0) return average + (Math.max(...r) - Math.min(...r)) * position / (1 + position);
    if (position <= 1) return average + position * (ideal - average);
    return ideal + (position - 1) * (largestBaseline(p, r, tau) - ideal);
  }

  function pmdMeanBaseline(p, r, tau) {
    const { top, m } = centredTargets(p, r, tau);
    return top + tau * m;
  }

  /** `baseline` at a position of the knob; 0 and 1 are `pmdMean` and `kl` themselves. */
  function knob(p, r, tau, position) {
    if (position === 0) return pmdMean(p, r, tau);
    if (position === 1) return kl(p, r, tau);
    return baseline(p, r, tau, baselineAt(p, r, tau, position));
  }

  function twoTemperatures(p, r, tau, baselineTau) {
    if (baselineTau === tau) return kl(p, r, tau);
    return baseline(p, r, tau, kl(p, r, baselineTau).baseline);
  }

  function standardised(p, r, tau) {
    const { D } = centredTargets(p, r, tau);
    const deviation = tau * Math.sqrt(mean(p, D.map((d) => d * d)));
    return pmdMean(p, r, tau * (deviation > 0 ? deviation : 1));
  }

  function ranked(p, r, tau) {
    const rank = r.map((value) => sum(p.length, (j) => (r[j] <= value ? p[j] : 0)));
    return { ...baseline(p, rank, tau, 1 + tau * Math.log(tau * -Math.expm1(-1 / tau))), reward: r };
  }

  /* ---------- what an update does ---------- */

  /** KL(q‖p), KL(p‖q) and χ²(q‖p), from the log-ratios: exact also where q hardly differs from p. */
  function movement(p, s) {
    return {
      kl: sum(p.length, (i) => p[i] * (s[i] * Math.expm1(s[i]) - excess(s[i]))),
      reverseKl: sum(p.length, (i) => p[i] * excess(s[i])),
      chi2: sum(p.length, (i) => p[i] * Math.expm1(s[i]) ** 2),
    };
  }

  /** Remaining share of the failures, (1 − J')/(1 − J), of rewards 0 and 1: e^s of a failure. */
  const failureFactor = (update) => Math.exp(update.logRatio[update.reward.indexOf(0)]);

  /** Bounds of Statement 9 on PMD-mean's failure factor that hold for every λ. */
  const failureBounds = (J, tau) => [Math.exp(-1 / Math.E - J / tau), Math.exp(-J / tau)];

  /**
   * What n rollouts with rewards 0 and 1 say of the two baselines, for each number k of successes: its chance, the mean
   * k/n, and τ log Ẑ = τ log(1 + (k/n)(e^{1/τ} − 1)) (Statement 12).
   */
  function estimates(J, tau, n) {
    let logChoose = 0;
    return Array.from({ length: n + 1 }, (_, k) => {
      if (k > 0) logChoose += Math.log(n - k + 1) - Math.log(k);
      return {
        k, chance: Math.exp(logChoose + k * Math.log(J) + (n - k) * Math.log1p(-J)), mean: k / n,
        logPartition: k === 0 ? 0 : 1 + tau * Math.log1p((1 - k / n) * Math.expm1(-1 / tau)),
      };
    });
  }

  /**
   * The policy in proportion to e^{θ r} with mean reward min r + share · (max r − min r), of all policies with that
   * mean the one of largest entropy, but that no action has less than 1e-12; 1e-9 ≤ share ≤ 1 − 1e-9, at most 50
   * actions, rewards apart by 1e-4 of their range.
   * θ by Newton's method on the log-odds of the share.
   */
  function evenPolicy(r, share) {
    const K = r.length, low = Math.min(...r), high = Math.max(...r), least = 1e-12;
    if (low === high) return r.map(() => 1 / K);
    const up = r.map((value) => (value - low) / (high - low)), down = r.map((value) => (high - value) / (high - low));
    const goal = Math.log(share) - Math.log1p(-share);
    const policy = (theta) => {
      const weights = up.map((x, i) => Math.exp(theta > 0 ? -theta * down[i] : theta * x));
      const total = sum(K, (i) => weights[i]);
      return weights.map((w) => least + (1 - K * least) * (w / total));
    };
    const propose = (theta) => {  // [log-odds wanted less those at θ, Newton's θ]
      const p = policy(theta), above = mean(p, up), below = mean(p, down);
      const tilted = (i) => p[i] - least, centre = sum(K, (i) => tilted(i) * up[i]) / (1 - K * least);
      const variance = sum(K, (i) => tilted(i) * (up[i] - centre) ** 2);
      const surplus = goal - (Math.log(above) - Math.log(below));
      return [Math.abs(surplus) < 1e-14 ? 0 : surplus, theta + surplus * above * below / variance];
    };
    const side = Math.sign(propose(0)[0]);
    let far = side;
    while (propose(far)[0] * side > 0) far *= 4;
    return policy(find(propose, 0, Math.min(0, far), Math.max(0, far)));
  }

  return {
    baseline, baselineAt, estimates, evenPolicy, excess, failureBounds, failureFactor, jensenGap: (p, r, tau) =>
      jensenGap(p, centredTargets(p, r, tau).D), kl, knob, largestBaseline, logRatio, mean, mixed, movement, pmdMean,
    principalBranch, ranked, ratioAt, standardised, twoTemperatures, wrightOmega,
  };
})();

if (typeof module !== "undefined") module.exports = updates;
