// What sampling does with a whole row of logits. Included inside the namespace of a path, after rows.h.

// Where the largest value of a row stands first; -1 where one is not a number.
int argmax(const float* x, int width) {
    Vec most = spread(-__builtin_inff()), faults = zero();
    along(width, [&](int i) {
        const Vec v = load(x + i);
        most = larger(most, v);
        faults = add(faults, mul(v, zero()));  // not a number for infinities, too: these are looked at one by one
    }, [&](int i, int n) {
        for (int k = i; k < i + n; ++k) most = larger(most, spread(x[k]));
        faults = add(faults, mul(load_part(x + i, n), zero()));
    });
    if (!(sum(faults) == 0))
        for (int i = 0; i < width; ++i)
            if (x[i] != x[i]) return -1;
    const float peak = largest(most);
    for (int i = 0; i < width; i += 64) {
        const int end = i + 64 < width ? i + 64 : width;
        bool found = false;
        for (int k = i; k < end; ++k) found |= x[k] == peak;
        for (int k = i; found && k < end; ++k)
            if (x[k] == peak) return k;
    }
    return -1;
}

double exponentials(const float* x, float most, float slope, int width, float* y) {
    const Vec peak = spread(most), factor = spread(slope), least = spread(kLeastExponent);
    double total = 0;
    for (int start = 0; start < width; start += 256) {
        const int count = width - start < 256 ? width - start : 256;
        Vec part = zero();
        const auto raised = [&](Vec values) {
            const Vec power = mul(sub(values, peak), factor);
            const Vec result = unless_below(power, least, exponential(power));
            part = add(part, result);
            return result;
        };
        along(count, [&](int i) {
            const Vec result = raised(load(x + start + i));
            if (y) store(y + start + i, result);
        }, [&](int i, int n) {
            float full[Vec::lanes];
            store(full, spread(-__builtin_inff()));
            __builtin_memcpy(full, x + start + i, sizeof(float) * n);
            const Vec result = raised(load(full));
            if (y) store_part(y + start + i, result, n);
        });
        total += sum(part);
    }
    return total;
}

// The buckets of a row's logits: (peak - logit) * scale without its fraction, the last for all beyond it.
struct Buckets {
    Vec peak, scale, last;
    Buckets(float peak, float scale, int count)
        : peak(spread(peak)), scale(spread(scale)), last(spread(static_cast<float>(1 - count))) {}
    Vec at(Vec logits) const { return sub(zero(), larger(mul(sub(logits, peak), scale), last)); }
};

void tally(const float* logits, const float* weights, int width, float peak, float scale, int buckets, double* sums) {
    const Buckets all(peak, scale, buckets);
    const auto count_in = [&](int i, int count, Vec values) {
        int32_t numbers[Vec::lanes];
        store_whole(numbers, all.at(values));
        for (int k = 0; k < count; ++k) sums[numbers[k]] += weights ? weights[i + k] : 1.f;
    };
    along(width, [&](int i) { count_in(i, Vec::lanes, load(logits + i)); },
          [&](int i, int n) { count_in(i, n, load_part(logits + i, n)); });
}

int collect(const float* logits, const float* weights, int width, float peak, float scale, int buckets, int bucket,
            Candidate* found) {
    const Buckets all(peak, scale, buckets);
    const Vec least = spread(static_cast<float>(bucket)), most = spread(static_cast<float>(bucket + 1));
    int count = 0;
    const auto look_at = [&](int i, int n, Vec values) {
        const Vec places = all.at(values);
        if (!any_within(places, least, most)) return;
        float at[Vec::lanes];
        store(at, places);
        for (int k = 0; k < n; ++k)
            if (at[k] >= static_cast<float>(bucket) && at[k] < static_cast<float>(bucket + 1))
                found[count++] = {logits[i + k], weights[i + k]};
    };
    along(width, [&](int i) { look_at(i, Vec::lanes, load(logits + i)); },
          [&](int i, int n) { look_at(i, n, load_part(logits + i, n)); });
    return count;
}

void clear_below(const float* values, float least, int width, float* weights) {
    const Vec bound = spread(least);
    along(width, [&](int i) { store(weights + i, unless_below(load(values + i), bound, load(weights + i))); },
          [&](int i, int n) {
              store_part(weights + i, unless_below(load_part(values + i, n), bound, load_part(weights + i, n)), n);
          });
}

void sum_blocks(const float* weights, int width, double* sums) {
    for (int start = 0; start < width; start += kSumBlock) {
        const int count = width - start < kSumBlock ? width - start : kSumBlock;
        Vec part = zero();
        along(count, [&](int i) { part = add(part, load(weights + start + i)); },
              [&](int i, int n) { part = add(part, load_part(weights + start + i, n)); });
        *sums++ = sum(part);
    }
}
