// How figures are written for people.

/** A number: 12,345 · 1.2M · 12.3 · 0.031; a dash where there is none. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return `${trim(value / 1e6)}M`;
  if (size >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en-US");
  return trim(value);
}

/** Seconds: 850 µs · 12.3 ms · 1.25 s · 2 min 5 s. */
export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${trim(value * 1000)} ms`;
  if (value < 120) return `${trim(value)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

/** A share of one in percent. */
export function percent(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value > 0 && value < 0.001 ? "< 0.1 %" : `${Number((value * 100).toFixed(1))} %`;
}

/** Time of day of milliseconds since 1970. */
export function clock(at) {
  return new Date(at).toLocaleTimeString("en-GB");
}

/** So long that somebody has to wait: "1 second", "7 seconds", "2 minutes". */
export function wait(value) {
  const whole = Math.max(1, Math.ceil(value));
  if (whole < 120) return whole === 1 ? "1 second" : `${whole} seconds`;
  return `${Math.ceil(whole / 60)} minutes`;
}

function trim(value) {
  return String(Number(value.toPrecision(3)));
}
