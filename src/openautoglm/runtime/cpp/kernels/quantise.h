// Activations to int8, one scale per row and group: the largest magnitude becomes 127, rounded to nearest, ties to even.
// Every path gives the same codes and scales. A group with a value that is not finite gets a scale that is not a number,
// so that the row's outputs say so. Included inside the namespace of a path.

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

// Round `count` values into codes, `step` bytes apart, and return the scale.
inline float round_to_int8(const float* x, int count, int8_t* codes, int64_t step) {
    const uint32_t bits = largest_bits(x, count);
    if (bits < kSmallest || bits >= kInfinity) {
        for (int i = 0; i < count; ++i) codes[i * step] = 0;
        return bits < kInfinity ? 0.f : __builtin_nanf("");
    }
    float most;
    __builtin_memcpy(&most, &bits, 4);
    const float inverse = 127.f / most;
    if (step == 1)  // said twice so that the compiler can work on neighbours at once
        for (int i = 0; i < count; ++i) codes[i] = static_cast<int8_t>(static_cast<int32_t>((x[i] * inverse + kRounder) - kRounder));
    else
        for (int i = 0; i < count; ++i)
            codes[i * step] = static_cast<int8_t>(static_cast<int32_t>((x[i] * inverse + kRounder) - kRounder));
    return most / 127.f;
}

void quantise(const PackedView& view, const float* x_row, int row, const Codes& codes, int64_t first, int64_t last) {
    for (int64_t g = first; g < last; ++g) {
        int8_t* out = codes.values + static_cast<int64_t>(row) * view.width + g * view.group_padded;
        const int64_t at = static_cast<int64_t>(row) * view.groups + g;
        codes.scales[at] = round_to_int8(x_row + g * view.group, view.group, out, 1);
        for (int i = view.group; i < view.group_padded; ++i) out[i] = 0;
        int32_t total = 0;
        for (int i = 0; i < view.group; ++i) total += out[i];
        codes.sums[at] = total;
    }
}
