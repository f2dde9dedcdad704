// Eight floats side by side in a register of AVX2. Included inside the namespace of the path.

struct Vec {
    static constexpr int lanes = 8;
    static constexpr int rows = 6;  // of a tile of a product: with two columns twelve of sixteen registers
    __m256 v;
};

inline Vec zero() { return {_mm256_setzero_ps()}; }
inline Vec spread(float x) { return {_mm256_set1_ps(x)}; }
inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
inline Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec muladd(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec fused(Vec a, Vec b, Vec c) { return muladd(a, b, c); }  // rounded once on every path
inline Vec larger(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }

inline float sum(Vec a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline float first(Vec a) { return _mm256_cvtss_f32(a.v); }
inline float largest(Vec a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

inline Vec load_bf16(const void* p) {
    const __m128i raw = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16))};
}
inline Vec load_int8(const void* p) {
    const __m128i raw = _mm_loadl_epi64(static_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw))};
}
inline void load_pairs(const uint8_t* p, Vec& first, Vec& second) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    first.v = _mm256_castsi256_ps(_mm256_slli_epi32(raw, 16));
    second.v = _mm256_castsi256_ps(_mm256_and_si256(raw, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
}
inline Vec nearest(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline Vec power_of_two(Vec a) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(a.v), _mm256_set1_epi32(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))};
}
// `value`, or zero where x is below `least`.
inline Vec unless_below(Vec x, Vec least, Vec value) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.v, least.v, _CMP_GE_OQ), value.v)};
}
// Whether any lane is at least `least` and below `most`.
inline bool any_within(Vec x, Vec least, Vec most) {
    const __m256 enough = _mm256_cmp_ps(x.v, least.v, _CMP_GE_OQ), below = _mm256_cmp_ps(x.v, most.v, _CMP_LT_OQ);
    return _mm256_movemask_ps(_mm256_and_ps(enough, below)) != 0;
}
// Floats without their fractions, as whole numbers.
inline void store_whole(int32_t* p, Vec a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvttps_epi32(a.v));
}
// Turn pairs by the angles of `turns`, cosine and sine of each pair.
inline Vec turned(Vec pairs, Vec turns) {
    const __m256 swapped = _mm256_mul_ps(_mm256_permute_ps(pairs.v, 0xB1), _mm256_movehdup_ps(turns.v));
    return {_mm256_addsub_ps(_mm256_mul_ps(pairs.v, _mm256_moveldup_ps(turns.v)), swapped)};
}
inline Vec load_halves(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
// Whole numbers, -127..127, into bytes.
inline void store_int8(int8_t* p, Vec a) {
    const __m256i whole = _mm256_cvtps_epi32(a.v);
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}

// Eight whole numbers of 32 bits; what leaves their range wraps around.
struct Ints {
    __m256i v;
};

inline Ints spread_int(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline Ints load_ints(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline void store_ints(int32_t* p, Ints a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
inline Ints load_points(const uint16_t* p) {
    return {_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline Ints times(Ints a, Ints b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
inline Vec to_floats(Ints a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Ints plus(Ints a, Ints b) { return {_mm256_add_epi32(a.v, b.v)}; }
// Hide from the compiler what a register holds.
inline void hide(Vec& a) { asm volatile("" : "+x"(a.v)); }
inline void hide(Ints& a) { asm volatile("" : "+x"(a.v)); }
