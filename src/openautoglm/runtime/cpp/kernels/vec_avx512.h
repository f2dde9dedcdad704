// Sixteen floats side by side in a register of AVX-512. Included inside the namespace of the path.

struct Vec {
    static constexpr int lanes = 16;
    static constexpr int rows = 8;  // of a tile of a product: with two columns half of 32 registers
    __m512 v;
};

inline Vec zero() { return {_mm512_setzero_ps()}; }
inline Vec spread(float x) { return {_mm512_set1_ps(x)}; }
inline Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec muladd(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec fused(Vec a, Vec b, Vec c) { return muladd(a, b, c); }  // rounded once on every path
inline Vec larger(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline float sum(Vec a) { return _mm512_reduce_add_ps(a.v); }
inline float first(Vec a) { return _mm512_cvtss_f32(a.v); }
inline float largest(Vec a) { return _mm512_reduce_max_ps(a.v); }

inline Vec load_bf16(const void* p) {
    const __m256i raw = _mm256_loadu_si256(static_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16))};
}
inline Vec load_int8(const void* p) {
    const __m128i raw = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(raw))};
}
inline void load_pairs(const uint8_t* p, Vec& first, Vec& second) {
    const __m512i raw = _mm512_loadu_si512(p);
    first.v = _mm512_castsi512_ps(_mm512_slli_epi32(raw, 16));
    second.v = _mm512_castsi512_ps(_mm512_and_si512(raw, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
inline Vec nearest(Vec a) { return {_mm512_roundscale_ps(a.v, 0)}; }
inline Vec power_of_two(Vec a) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
// `value`, or zero where x is below `least`.
inline Vec unless_below(Vec x, Vec least, Vec value) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, least.v, _CMP_GE_OQ), value.v)};
}
// Whether any lane is at least `least` and below `most`.
inline bool any_within(Vec x, Vec least, Vec most) {
    return (_mm512_cmp_ps_mask(x.v, least.v, _CMP_GE_OQ) & _mm512_cmp_ps_mask(x.v, most.v, _CMP_LT_OQ)) != 0;
}
// Floats without their fractions, as whole numbers.
inline void store_whole(int32_t* p, Vec a) { _mm512_storeu_si512(p, _mm512_cvttps_epi32(a.v)); }
// Turn pairs by the angles of `turns`, cosine and sine of each pair.
inline Vec turned(Vec pairs, Vec turns) {
    const __m512 swapped = _mm512_mul_ps(_mm512_permute_ps(pairs.v, 0xB1), _mm512_movehdup_ps(turns.v));
    const __m512 straight = _mm512_mul_ps(pairs.v, _mm512_moveldup_ps(turns.v));
    return {_mm512_mask_sub_ps(_mm512_add_ps(straight, swapped), 0x5555, straight, swapped)};
}
inline Vec load_halves(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
// Whole numbers, -127..127, into bytes.
inline void store_int8(int8_t* p, Vec a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v)));
}

// Sixteen whole numbers of 32 bits; what leaves their range wraps around.
struct Ints {
    __m512i v;
};

inline Ints spread_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Ints load_ints(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_ints(int32_t* p, Ints a) { _mm512_storeu_si512(p, a.v); }
inline Ints load_points(const uint16_t* p) {
    return {_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline Ints times(Ints a, Ints b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline Vec to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Ints plus(Ints a, Ints b) { return {_mm512_add_epi32(a.v, b.v)}; }
// Hide from the compiler what a register holds.
inline void hide(Vec& a) { asm volatile("" : "+v"(a.v)); }
inline void hide(Ints& a) { asm volatile("" : "+v"(a.v)); }
