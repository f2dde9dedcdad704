// int8 and int4 weights with the byte products of AVX-512 VNNI: unsigned codes times signed activations, four
// neighbours at once, exact; see formats_float.h for what a format is. Included inside the namespace of the path.

struct Int8 {
    static constexpr bool coded = true;
    static constexpr bool unpacks = false;
    static constexpr bool prepares = false;
    static constexpr int middle = 128;
    static constexpr int steps = 1;
    static constexpr int line_inputs = 4;
    static constexpr int flush = 0;
    using Sum = Ints;
    using Step = Ints;
    static Step step(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
    static void keep(uint8_t* p, Step a) { _mm512_storeu_si512(p, a.v); }
    static void unpack(const uint8_t* p, Step (&to)[steps]) { to[0] = step(p); }
    static Ints item(const uint8_t* p) {
        int32_t four;
        __builtin_memcpy(&four, p, 4);
        return spread_int(four);
    }
    static Sum multiply_add(Step weights, Ints x, Sum sum) { return {_mm512_dpbusd_epi32(sum.v, weights.v, x.v)}; }
};

struct Int4 : Int8 {
    static constexpr bool unpacks = true;
    static constexpr int middle = 8;
    static constexpr int steps = 2;
    static constexpr int line_inputs = 8;
    static void unpack(const uint8_t* p, Step (&to)[steps]) {
        const __m512i eight = step(p).v, low = _mm512_set1_epi8(15);
        to[0].v = _mm512_and_si512(eight, low);
        to[1].v = _mm512_and_si512(_mm512_srli_epi16(eight, 4), low);
    }
};

// sum += the products of bytes, unsigned by signed.
inline Ints byte_products(Ints codes, Ints x, Ints sum) { return {_mm512_dpbusd_epi32(sum.v, codes.v, x.v)}; }
