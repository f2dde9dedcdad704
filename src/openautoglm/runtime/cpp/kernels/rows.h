// Operators on single rows: norms, sums, rotary, gates, table rows. Included inside the namespace of a path.

constexpr float kLeastExponent = -87.f, kMostExponent = 88.f;

// e to the power of x, relative error below 1e-6 between the bounds above; outside it is that of the bound.
// The coefficients are those of the Taylor series: the rest is at most ln(2) / 2.
inline Vec exponential(Vec x) {
    x = larger(spread(kLeastExponent), x);  // in this order what is not a number stays none
    x = sub(zero(), larger(spread(-kMostExponent), sub(zero(), x)));
    const Vec whole = nearest(mul(x, spread(1.44269504f)));
    Vec rest = muladd(whole, spread(-0.693359375f), x);  // ln(2) in two parts, the first short and so exact
    rest = muladd(whole, spread(2.12194440e-4f), rest);
    Vec series = spread(1.f / 5040);
    for (const float factor : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f})
        series = muladd(series, rest, spread(factor));
    return mul(series, power_of_two(whole));
}

// Call body(offset) for every full register of a row and finish(offset, count) for what is left over.
template <class Body, class Rest> inline void along(int width, const Body& body, const Rest& finish) {
    int i = 0;
    for (; i + Vec::lanes <= width; i += Vec::lanes) body(i);
    if (i < width) finish(i, width - i);
}

// A part of a row, filled up with zeros.
inline Vec load_part(const float* p, int count) {
    float full[Vec::lanes] = {};
    __builtin_memcpy(full, p, sizeof(float) * count);
    return load(full);
}
inline void store_part(float* p, Vec a, int count) {
    float full[Vec::lanes];
    store(full, a);
    __builtin_memcpy(p, full, sizeof(float) * count);
}

float sum_squares(const float* x, int width) {
    Vec one = zero(), two = zero();
    int i = 0;
    for (; i + 2 * Vec::lanes <= width; i += 2 * Vec::lanes) {
        const Vec a = load(x + i), b = load(x + i + Vec::lanes);
        one = muladd(a, a, one);
        two = muladd(b, b, two);
    }
    along(width - i, [&](int k) { const Vec v = load(x + i + k); one = muladd(v, v, one); },
          [&](int k, int n) { const Vec v = load_part(x + i + k, n); two = muladd(v, v, two); });
    return sum(add(one, two));
}

// Call one(i, load, store) for every register of a row; what is left over at its end goes over a buffer.
template <class One> inline void each(int width, const One& one) {
    along(width, [&](int i) {
        one([&](const float* p) { return load(p + i); }, [&](float* p, Vec v) { store(p + i, v); });
    }, [&](int i, int n) {
        one([&](const float* p) { return load_part(p + i, n); }, [&](float* p, Vec v) { store_part(p + i, v, n); });
    });
}

void scale_row(const float* x, const float* weight, float factor, int width, float* y) {
    const Vec all = spread(factor);
    if (weight)
        each(width, [&](auto get, auto put) { put(y, mul(mul(get(x), all), get(weight))); });
    else each(width, [&](auto get, auto put) { put(y, mul(get(x), all)); });
}

void add_rows(const float* x, const float* y, int width, float* total) {
    each(width, [&](auto get, auto put) { put(total, add(get(x), get(y))); });
}

void mul_rows(const float* x, const float* y, int width, float* product) {
    each(width, [&](auto get, auto put) { put(product, mul(get(x), get(y))); });
}

void rotary(const float* x, int heads, int head_dim, int rotary_dims, const float* table_row, float* y) {
    for (int h = 0; h < heads; ++h, x += head_dim, y += head_dim) {
        along(rotary_dims, [&](int i) { store(y + i, turned(load(x + i), load(table_row + i))); },
              [&](int i, int n) { store_part(y + i, turned(load_part(x + i, n), load_part(table_row + i, n)), n); });
        if (x != y) __builtin_memcpy(y + rotary_dims, x + rotary_dims, sizeof(float) * (head_dim - rotary_dims));
    }
}

inline Vec sigmoid_times(Vec gate) {
    return div(gate, add(spread(1.f), exponential(sub(zero(), gate))));
}

void silu(const float* x, int width, float* y) {
    each(width, [&](auto get, auto put) { put(y, sigmoid_times(get(x))); });
}

void silu_mul(const float* gate, const float* up, int width, float* y) {
    each(width, [&](auto get, auto put) { put(y, mul(sigmoid_times(get(gate)), get(up))); });
}

void widen_bf16(const uint16_t* row, int width, float* y) {
    along(width, [&](int i) { store(y + i, load_bf16(row + i)); }, [&](int i, int n) {
        for (int k = i; k < i + n; ++k) {
            const uint32_t bits = static_cast<uint32_t>(row[k]) << 16;
            __builtin_memcpy(y + k, &bits, 4);
        }
    });
}

void widen_int8(const int8_t* row, float scale, int width, float* y) {
    along(width, [&](int i) { store(y + i, mul(load_int8(row + i), spread(scale))); }, [&](int i, int n) {
        for (int k = i; k < i + n; ++k) y[k] = static_cast<float>(row[k]) * scale;
    });
}
