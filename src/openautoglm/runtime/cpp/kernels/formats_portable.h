// int8 and int4 weights in plain C++; see formats_float.h for what a format is. Included inside the namespace of the
// path.

struct Bytes {
    uint8_t at[Vec::lanes * 4];
};
struct Four {
    int8_t at[4];
};

struct Int8 {
    static constexpr bool coded = true;
    static constexpr bool unpacks = false;
    static constexpr bool prepares = false;
    static constexpr int middle = 128;
    static constexpr int steps = 1;
    static constexpr int line_inputs = 4;
    static constexpr int flush = 0;
    using Sum = Ints;
    using Step = Bytes;
    static Step step(const uint8_t* p) { Step r; __builtin_memcpy(&r, p, sizeof(r)); return r; }
    static void keep(uint8_t* p, const Step& a) { __builtin_memcpy(p, &a, sizeof(a)); }
    static void unpack(const uint8_t* p, Step (&to)[steps]) { to[0] = step(p); }
    static Four item(const uint8_t* p) { Four r; __builtin_memcpy(&r, p, sizeof(r)); return r; }
    static Sum multiply_add(const Step& weights, Four x, Sum sum) {
        AUTOGLM_EACH {
            int32_t total = 0;
            for (int b = 0; b < 4; ++b) total += weights.at[i * 4 + b] * x.at[b];
            sum.at[i] += static_cast<uint32_t>(total);
        }
        return sum;
    }
};

struct Int4 : Int8 {
    static constexpr int middle = 8;
    static constexpr int steps = 2;
    static constexpr int line_inputs = 8;
    static void unpack(const uint8_t* p, Step (&to)[steps]) {
        const Step eight = step(p);
        for (int i = 0; i < Vec::lanes * 4; ++i) {
            to[0].at[i] = eight.at[i] & 15;
            to[1].at[i] = eight.at[i] >> 4;
        }
    }
};

// sum += the products of bytes, unsigned by signed.
inline Ints byte_products(const Ints& codes, const Ints& x, Ints sum) {
    Bytes bytes;
    Four four;
    __builtin_memcpy(&bytes, &codes, sizeof(bytes));
    __builtin_memcpy(&four, &x, sizeof(four));
    return Int8::multiply_add(bytes, four, sum);
}
