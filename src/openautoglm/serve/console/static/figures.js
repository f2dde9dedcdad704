// From pages of figures, one every other second, to what charts show: rates, shares, and quantiles of each interval.

const HISTOGRAMS = { "vllm:time_to_first_token_seconds": "ttft", "vllm:inter_token_latency_seconds": "itl" };
const COUNTS = {
  "vllm:generation_tokens_total": "generated", "vllm:prompt_tokens_total": "prompts",
  "vllm:prefix_cache_queries_total": "asked", "vllm:prefix_cache_hits_total": "found",
  "vllm:num_requests_running": "running", "vllm:num_requests_waiting": "waiting",
  "vllm:request_success_total": "ended",
};
const FULLEST = { "vllm:kv_cache_usage_perc": "cache" };

function nothing() {
  return { ttft: new Map(), itl: new Map(), generated: 0, prompts: 0, asked: 0, found: 0, running: 0, waiting: 0,
    ended: 0, cache: null };
}

/** What one page says of each model. @returns {Map<string, object>} */
export function standing(samples) {
  const models = new Map();
  for (const { name, labels, value } of samples) {
    const model = labels.model_name;
    if (model === undefined || Number.isNaN(value)) continue;
    const bucket = name.endsWith("_bucket") ? HISTOGRAMS[name.slice(0, -7)] : undefined;
    const count = COUNTS[name];
    const level = FULLEST[name];
    if (bucket === undefined && count === undefined && level === undefined) continue;
    if (!models.has(model)) models.set(model, nothing());
    const stand = models.get(model);
    if (count !== undefined) stand[count] += value;
    else if (level !== undefined) stand[level] = Math.max(stand[level] ?? 0, value);
    else if (labels.le !== undefined) add(stand[bucket], labels.le === "+Inf" ? Infinity : Number(labels.le), value);
  }
  return models;
}

/** One model's standing, or that of all together (name ""). The fullest cache stands for all. */
export function together(models, name = "") {
  const all = nothing();
  for (const [model, stand] of models) {
    if (name && model !== name) continue;
    for (const field of Object.values(COUNTS)) all[field] += stand[field];
    for (const field of Object.values(HISTOGRAMS)) {
      for (const [bound, count] of stand[field]) add(all[field], bound, count);
    }
    if (stand.cache !== null) all.cache = Math.max(all.cache ?? 0, stand.cache);
  }
  return all;
}

/** Whether anybody has asked anything since the server started; probes do not count. */
export function asked(stand) {
  return stand.ended + stand.waiting + (stand.ttft.get(Infinity) ?? 0) > 0;
}

/**
 * What happened between two standings, `seconds` apart. A figure that cannot be said is null: nothing happened that it
 * could be taken from, or the server was started again in between.
 */
export function between(before, after, seconds) {
  const grown = (field) => (after[field] >= before[field] ? after[field] - before[field] : null);
  const rate = (field) => (grown(field) === null ? null : grown(field) / seconds);
  const looked = grown("asked");
  const hit = grown("found");
  const ttft = growth(before.ttft, after.ttft);
  const itl = growth(before.itl, after.itl);
  return {
    ttft50: quantile(0.5, ttft), ttft99: quantile(0.99, ttft), itl50: quantile(0.5, itl), itl99: quantile(0.99, itl),
    generated: rate("generated"), prompts: rate("prompts"), running: after.running, waiting: after.waiting,
    cache: after.cache, prefix: looked && hit !== null ? Math.min(1, hit / looked) : null,
  };
}

/** Counts of an interval, from two states of a histogram; null where it began anew. */
export function growth(before, after) {
  const bounds = [...after.keys()].sort((a, b) => a - b);
  const grown = bounds.map((bound) => [bound, after.get(bound) - (before.get(bound) ?? 0)]);
  return grown.some(([, count]) => count < 0) ? null : grown;
}

/**
 * The value below which the share `q` lies, as Prometheus's histogram_quantile estimates it: evenly within a bucket,
 * and the last bound for what lies beyond it. Null of nothing.
 * @param buckets [upper bound, how many are not above it], ascending, the last bound infinite.
 */
export function quantile(q, buckets) {
  if (!buckets || !buckets.length || buckets.at(-1)[0] !== Infinity) return null;
  const total = buckets.at(-1)[1];
  if (!(total > 0)) return null;
  const rank = q * total;
  const index = buckets.findIndex(([, count]) => count >= rank);
  if (index === buckets.length - 1) return index > 0 ? buckets[index - 1][0] : null;
  const [low, below] = index > 0 ? buckets[index - 1] : [0, 0];
  const [high, upto] = buckets[index];
  return upto > below ? low + (high - low) * (rank - below) / (upto - below) : high;
}

function add(histogram, bound, count) {
  histogram.set(bound, (histogram.get(bound) ?? 0) + count);
}
