// Axes: round steps, and units that fit.

/** The smallest of 1, 2, 5, 10, ... times a power of ten that is not below `raw`. */
export function roundUp(raw) {
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= raw * 0.999);
}

/** Ticks from nought to a round value not below `high`; about `count` steps. */
export function ticks(high, count = 4, whole = false) {
  const end = high > 0 ? high : 1;
  const step = Math.max(roundUp(end / count), whole ? 1 : 0);
  const steps = Math.ceil(end / step - 1e-9);
  return Array.from({ length: steps + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}

/** Units of an axis: how values are scaled, and what stands above. `high`: the largest value. */
export const units = {
  seconds: (high) => (high > 0 && high < 0.001 ? { factor: 1e6, name: "µs" } : high < 1 ? { factor: 1000, name: "ms" }
    : { factor: 1, name: "s" }),
  rate: () => ({ factor: 1, name: "tokens / s" }),
  count: () => ({ factor: 1, name: "requests", whole: true }),
  share: () => ({ factor: 100, name: "%" }),
};
