// What a processor can do at most, to hold the kernels against. Included inside the namespace of a path.

// As many products as a loop over registers does, at least `products`; returns how many. CHAINS sums hide the latency.
template <int CHAINS, class Register, class Once>
inline int64_t burn(int64_t products, int64_t each, Register x, const Once& once) {
    Register sums[CHAINS];
    for (Register& sum : sums) sum = x;
    int64_t done = 0;
    for (; done < products; done += CHAINS * each)
        for (Register& sum : sums) {
            hide(x);
            sum = once(x, sum);
        }
    for (Register& sum : sums) hide(sum);
    return done;
}

int64_t burn_int8(int64_t products) {
    return burn<6>(products, int64_t{4} * Vec::lanes, spread_int(0x01010101), [](const Ints& x, const Ints& sum) {
        return byte_products(x, x, sum);
    });
}

int64_t burn_fp32(int64_t products) {
    return burn<10>(products, int64_t{Vec::lanes}, spread(0.5f), [](const Vec& x, const Vec& sum) {
        return muladd(x, x, sum);
    });
}

// Read `count` bytes; returns a sum of them, so that somebody needs them.
int64_t walk(const uint8_t* bytes, int64_t count) {
    constexpr int64_t each = Vec::lanes * 4;
    Ints sums[4] = {spread_int(0), spread_int(0), spread_int(0), spread_int(0)};
    int64_t at = 0;
    for (; at + 4 * each <= count; at += 4 * each)
        for (int i = 0; i < 4; ++i)
            sums[i] = plus(sums[i], load_ints(reinterpret_cast<const int32_t*>(bytes + at + i * each)));
    int32_t parts[Vec::lanes];
    store_ints(parts, plus(plus(sums[0], sums[1]), plus(sums[2], sums[3])));
    int64_t total = 0;
    for (int32_t part : parts) total += part;
    for (; at < count; ++at) total += bytes[at];
    return total;
}
