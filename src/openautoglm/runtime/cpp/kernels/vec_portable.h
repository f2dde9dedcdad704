// Eight floats side by side in plain C++, for processors without a path of their own.
// Included inside the namespace of a path; every vec_*.h gives the same names.

struct Vec {
    static constexpr int lanes = 8;
    static constexpr int rows = 2;  // of a tile of a product
    float at[lanes];
};

#define AUTOGLM_EACH for (int i = 0; i < Vec::lanes; ++i)

inline Vec zero() { return Vec{}; }
inline Vec spread(float x) { Vec r; AUTOGLM_EACH r.at[i] = x; return r; }
inline Vec load(const float* p) { Vec r; __builtin_memcpy(&r, p, sizeof(r)); return r; }
inline void store(float* p, Vec a) { __builtin_memcpy(p, &a, sizeof(a)); }
inline Vec add(Vec a, Vec b) { AUTOGLM_EACH a.at[i] += b.at[i]; return a; }
inline Vec sub(Vec a, Vec b) { AUTOGLM_EACH a.at[i] -= b.at[i]; return a; }
inline Vec mul(Vec a, Vec b) { AUTOGLM_EACH a.at[i] *= b.at[i]; return a; }
inline Vec div(Vec a, Vec b) { AUTOGLM_EACH a.at[i] /= b.at[i]; return a; }
inline Vec muladd(Vec a, Vec b, Vec c) { AUTOGLM_EACH c.at[i] += a.at[i] * b.at[i]; return c; }
inline Vec fused(Vec a, Vec b, Vec c) {  // rounded once on every path
    AUTOGLM_EACH c.at[i] = __builtin_fmaf(a.at[i], b.at[i], c.at[i]);
    return c;
}
inline Vec larger(Vec a, Vec b) { AUTOGLM_EACH a.at[i] = a.at[i] > b.at[i] ? a.at[i] : b.at[i]; return a; }
inline float sum(Vec a) { float s = 0; AUTOGLM_EACH s += a.at[i]; return s; }
inline float first(Vec a) { return a.at[0]; }
inline float largest(Vec a) { float m = a.at[0]; AUTOGLM_EACH m = m > a.at[i] ? m : a.at[i]; return m; }

inline float from_bits(uint32_t bits) { float x; __builtin_memcpy(&x, &bits, 4); return x; }

inline Vec load_bf16(const void* p) {
    uint16_t raw[Vec::lanes];
    __builtin_memcpy(raw, p, sizeof(raw));
    Vec r;
    AUTOGLM_EACH r.at[i] = from_bits(static_cast<uint32_t>(raw[i]) << 16);
    return r;
}
inline Vec load_int8(const void* p) {
    int8_t raw[Vec::lanes];
    __builtin_memcpy(raw, p, sizeof(raw));
    Vec r;
    AUTOGLM_EACH r.at[i] = raw[i];
    return r;
}
// Pairs of bf16: the first of each, and the second of each.
inline void load_pairs(const uint8_t* p, Vec& first, Vec& second) {
    uint32_t raw[Vec::lanes];
    __builtin_memcpy(raw, p, sizeof(raw));
    AUTOGLM_EACH first.at[i] = from_bits(raw[i] << 16);
    AUTOGLM_EACH second.at[i] = from_bits(raw[i] & 0xFFFF0000u);
}
// The nearest whole number of each, and two to the power of it; for -126..127.
inline Vec nearest(Vec a) { AUTOGLM_EACH a.at[i] = (a.at[i] + 12582912.f) - 12582912.f; return a; }
inline Vec power_of_two(Vec a) {
    AUTOGLM_EACH a.at[i] = from_bits(static_cast<uint32_t>(static_cast<int32_t>(a.at[i]) + 127) << 23);
    return a;
}
// `value`, or zero where x is below `least`.
inline Vec unless_below(Vec x, Vec least, Vec value) {
    AUTOGLM_EACH value.at[i] = x.at[i] >= least.at[i] ? value.at[i] : 0.f;
    return value;
}
// Whether any lane is at least `least` and below `most`.
inline bool any_within(Vec x, Vec least, Vec most) {
    bool any = false;
    AUTOGLM_EACH any |= x.at[i] >= least.at[i] && x.at[i] < most.at[i];
    return any;
}
// Floats without their fractions, as whole numbers.
inline void store_whole(int32_t* p, Vec a) { AUTOGLM_EACH p[i] = static_cast<int32_t>(a.at[i]); }
// Turn pairs by the angles of `turns`, cosine and sine of each pair.
inline Vec turned(Vec pairs, Vec turns) {
    Vec r;
    for (int i = 0; i < Vec::lanes; i += 2) {
        r.at[i] = pairs.at[i] * turns.at[i] - pairs.at[i + 1] * turns.at[i + 1];
        r.at[i + 1] = pairs.at[i + 1] * turns.at[i] + pairs.at[i] * turns.at[i + 1];
    }
    return r;
}
inline float from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 31u, fraction = half & 1023u;
    if (exponent == 31) return from_bits(sign | 0x7F800000u | fraction << 13);
    if (exponent != 0) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -small : small;
}
inline Vec load_halves(const uint16_t* p) {
    uint16_t raw[Vec::lanes];
    __builtin_memcpy(raw, p, sizeof(raw));
    Vec r;
    AUTOGLM_EACH r.at[i] = from_half(raw[i]);
    return r;
}
// Whole numbers, -127..127, into bytes.
inline void store_int8(int8_t* p, Vec a) { AUTOGLM_EACH p[i] = static_cast<int8_t>(static_cast<int32_t>(a.at[i])); }

// Eight whole numbers of 32 bits; what leaves their range wraps around.
struct Ints {
    uint32_t at[Vec::lanes];
};

inline Ints spread_int(int32_t x) { Ints r; AUTOGLM_EACH r.at[i] = static_cast<uint32_t>(x); return r; }
inline Ints load_ints(const int32_t* p) { Ints r; __builtin_memcpy(&r, p, sizeof(r)); return r; }
inline void store_ints(int32_t* p, Ints a) { __builtin_memcpy(p, &a, sizeof(a)); }
inline Ints load_points(const uint16_t* p) {
    uint16_t raw[Vec::lanes];
    __builtin_memcpy(raw, p, sizeof(raw));
    Ints r;
    AUTOGLM_EACH r.at[i] = raw[i];
    return r;
}
inline Ints times(Ints a, Ints b) { AUTOGLM_EACH a.at[i] *= b.at[i]; return a; }
inline Vec to_floats(Ints a) {
    Vec r;
    AUTOGLM_EACH r.at[i] = static_cast<float>(static_cast<int32_t>(a.at[i]));
    return r;
}
inline Ints plus(Ints a, Ints b) { AUTOGLM_EACH a.at[i] += b.at[i]; return a; }
// Hide from the compiler what a register holds.
inline void hide(Vec& a) { asm volatile("" : "+m"(a)); }
inline void hide(Ints& a) { asm volatile("" : "+m"(a)); }
