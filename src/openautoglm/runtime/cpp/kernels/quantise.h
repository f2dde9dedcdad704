// Activations to int8, one scale per row and group: the largest magnitude becomes 127, rounded to nearest, ties to
// even. Every path gives the same codes and scales. A group with a value that is not finite gets a scale that is not a
// number, so that the row's outputs say so. Included inside the namespace of a path.

constexpr float kRounder = 12582912.f;       // 1.5 * 2^23: adding and taking it away rounds to a whole number
constexpr uint32_t kInfinity = 0x7F800000u;
constexpr uint32_t kSmallest = 0x0DA24260u;  // 1e-30: below it a group counts as zero, and 127 / m cannot overflow

// Bits of the largest magnitude: infinities and values that are no numbers are the largest of all.
inline uint32_t largest_bits(const float* x, int count) {
    uint32_t most = 0;
    for (int i = 0; i < count; ++i) {
        uint32_t bits;
        __builtin_memcpy(&bits, x + i, 4);
        bits &= 0x7FFFFFFFu;
        most = bits > most ? bits : most;
    }
    return most;
}

// What the values of a group are multiplied with, and its scale.
struct GroupScale {
    float inverse, scale;
    explicit GroupScale(uint32_t bits) : inverse(0), scale(bits < kInfinity ? 0.f : __builtin_nanf("")) {
        if (bits < kSmallest || bits >= kInfinity) return;
        float most;
        __builtin_memcpy(&most, &bits, 4);
        inverse = 127.f / most;
        scale = most / 127.f;
    }
    bool empty() const { return inverse == 0; }
};

// Round `count` values into codes and return the scale.
inline float round_to_int8(const float* x, int count, int8_t* codes) {
    const GroupScale group(largest_bits(x, count));
    for (int i = 0; i < count; ++i) {
        const float rounded = group.empty() ? 0.f : (x[i] * group.inverse + kRounder) - kRounder;
        codes[i] = static_cast<int8_t>(static_cast<int32_t>(rounded));
    }
    return group.scale;
}

inline int32_t sum_codes(const int8_t* codes, int count) {
    int32_t total = 0;
    for (int i = 0; i < count; ++i) total += codes[i];
    return total;
}

// One group of a multiple of sixteen values: its codes and their sum; returns the scale.
inline float round_group(const float* x, int count, int8_t* codes, int32_t* sum_of) {
    const GroupScale group(largest_bits(x, count));
    if (group.empty()) {
        __builtin_memset(codes, 0, count);
        *sum_of = 0;
        return group.scale;
    }
    const Vec inverse = spread(group.inverse), rounder = spread(kRounder);
    Vec total = zero();
    for (int i = 0; i < count; i += Vec::lanes) {
        const Vec rounded = sub(add(mul(load(x + i), inverse), rounder), rounder);
        total = add(total, rounded);
        store_int8(codes + i, rounded);
    }
    *sum_of = static_cast<int32_t>(sum(total));  // exact: whole numbers below 2^24
    return group.scale;
}

void quantise(const Grouping& grouping, const float* x_row, int row, const Codes& codes, int64_t first, int64_t last) {
    const int count = grouping.group;
    for (int64_t g = first; g < last; ++g) {
        int8_t* out = codes.values + static_cast<int64_t>(row) * grouping.width() + g * grouping.group_padded;
        const int64_t at = static_cast<int64_t>(row) * grouping.groups + g;
        if (count % 16 == 0) {
            codes.scales[at] = round_group(x_row + g * count, count, out, codes.sums + at);
            continue;
        }
        codes.scales[at] = round_to_int8(x_row + g * count, count, out);
        for (int i = count; i < grouping.group_padded; ++i) out[i] = 0;
        codes.sums[at] = sum_codes(out, count);
    }
}
