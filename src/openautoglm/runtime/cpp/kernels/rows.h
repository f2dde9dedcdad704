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

void rms_norm(const float* x, const float* weight, int width, float eps, float* y) {
    Vec squares = zero();
    along(width, [&](int i) { const Vec v = load(x + i); squares = muladd(v, v, squares); },
          [&](int i, int n) { const Vec v = load_part(x + i, n); squares = muladd(v, v, squares); });
    const Vec factor = spread(1.f / __builtin_sqrtf(sum(squares) / static_cast<float>(width) + eps));
    along(width, [&](int i) { store(y + i, mul(mul(load(x + i), factor), load(weight + i))); },
          [&](int i, int n) {
              store_part(y + i, mul(mul(load_part(x + i, n), factor), load_part(weight + i, n)), n);
          });
}

void add_rows(const float* x, const float* y, int width, float* total) {
    along(width, [&](int i) { store(total + i, add(load(x + i), load(y + i))); },
          [&](int i, int n) { store_part(total + i, add(load_part(x + i, n), load_part(y + i, n)), n); });
}

void rotary(float* x, int heads, int head_dim, int rotary_dims, const float* table_row) {
    for (int h = 0; h < heads; ++h, x += head_dim)
        for (int i = 0; i < rotary_dims; i += 2) {
            const float a = x[i], b = x[i + 1], cosine = table_row[i], sine = table_row[i + 1];
            x[i] = a * cosine - b * sine;
            x[i + 1] = b * cosine + a * sine;
        }
}

inline Vec gated(Vec gate, Vec up) {
    return mul(div(gate, add(spread(1.f), exponential(sub(zero(), gate)))), up);
}

void silu_mul(const float* gate, const float* up, int width, float* y) {
    along(width, [&](int i) { store(y + i, gated(load(gate + i), load(up + i))); },
          [&](int i, int n) { store_part(y + i, gated(load_part(gate + i, n), load_part(up + i, n)), n); });
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
