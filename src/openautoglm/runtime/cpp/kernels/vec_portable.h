// Eight floats side by side in plain C++, for processors without a path of their own.
// Included inside the namespace of a path; every vec_*.h gives the same names.

struct Vec {
    static constexpr int lanes = 8;
    static constexpr int rows = 2;  // of a tile of the float product
    static constexpr int code_rows = 2;  // of a tile of the int8 and int4 products
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
inline Vec larger(Vec a, Vec b) { AUTOGLM_EACH a.at[i] = a.at[i] > b.at[i] ? a.at[i] : b.at[i]; return a; }
inline float sum(Vec a) { float s = 0; AUTOGLM_EACH s += a.at[i]; return s; }
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
