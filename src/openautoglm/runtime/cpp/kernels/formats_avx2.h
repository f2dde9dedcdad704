// int8 and int4 weights with AVX2; see formats_float.h for what a format is. Included inside the namespace of the path.
//
// AVX2 has no exact product of bytes that is wide enough for 8-bit codes, so these are spread to words, the even and
// the odd bytes of four inputs, and activations are words in the same order. 4-bit codes use the byte product, which
// adds two neighbours in 16 bits: 2 * 15 * 127 fits eight times over before a sum must be widened.

struct Steps {
    __m256i v;
};

// The sums are said in assembly because compilers regroup them, adding products first, and run out of registers.
struct Int8 {
    static constexpr bool coded = true;
    static constexpr bool unpacks = true;
    static constexpr int middle = 128;
    static constexpr int steps = 2;
    static constexpr int line_inputs = 4;
    static constexpr int flush = 0;
    using Sum = Ints;
    using Step = Steps;
    static Step step(const uint8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
    static void keep(uint8_t* p, Step a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
    static void unpack(const uint8_t* p, Step (&to)[steps]) {
        const __m256i four = step(p).v;
        to[0].v = _mm256_and_si256(four, _mm256_set1_epi16(255));
        to[1].v = _mm256_srli_epi16(four, 8);
    }
    static Steps item(const uint8_t* p) {
        int32_t both;
        __builtin_memcpy(&both, p, 4);
        return {_mm256_set1_epi32(both)};
    }
    static Sum multiply_add(Step weights, Steps x, Sum sum) {
        __m256i pairs;
        asm("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+x"(sum.v), "=&x"(pairs) : "x"(weights.v), "x"(x.v));
        return sum;
    }
    // Codes of a row as words: of each four the first and third, then the second and fourth.
    static constexpr bool prepares = true;
    static void prepare(const int8_t* codes, int count, uint8_t* items) {
        const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15,
                                               0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
        int i = 0;
        for (; i + 16 <= count; i += 16) {
            const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i)));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(items + 2 * i), _mm256_shuffle_epi8(words, order));
        }
        if (i == count) return;  // eight are left
        const __m128i words = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(items + 2 * i),
                         _mm_shuffle_epi8(words, _mm256_castsi256_si128(order)));
    }
};

struct Int4 : Int8 {
    static constexpr int middle = 8;
    static constexpr int line_inputs = 8;
    static constexpr int flush = 8;
    static void unpack(const uint8_t* p, Step (&to)[steps]) {
        const __m256i eight = step(p).v, low = _mm256_set1_epi8(15);
        to[0].v = _mm256_and_si256(eight, low);
        to[1].v = _mm256_and_si256(_mm256_srli_epi16(eight, 4), low);
    }
    static Steps narrow_zero() { return {_mm256_setzero_si256()}; }
    static Steps narrow_add(Step weights, Steps x, Steps sum) {
        __m256i pairs;
        asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum.v), "=&x"(pairs) : "x"(weights.v), "x"(x.v));
        return sum;
    }
    static Sum widen(Steps narrow, Sum sum) {
        return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(narrow.v, _mm256_set1_epi16(1)))};
    }
    static constexpr bool prepares = false;
};

// sum += the products of bytes, unsigned by signed: the fastest that this path can do, exact for small values only.
inline Ints byte_products(Ints codes, Ints x, Ints sum) {
    const __m256i pairs = _mm256_maddubs_epi16(codes.v, x.v);
    return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}
