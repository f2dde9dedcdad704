// fp32 and bf16 weights as the product sees them: activations stay fp32. Included inside the namespace of a path.
//
// A format says how one register of packed weights (a line has 128 bytes: 32 outputs of four bytes) becomes `steps`
// registers of weights, and how a step is multiplied by an item, four bytes of a row that all outputs share.

struct Fp32 {
    static constexpr bool coded = false;
    static constexpr bool unpacks = false;  // whether it pays to keep steps for many rows
    static constexpr int steps = 1;
    static constexpr int line_inputs = 1;
    static constexpr int flush = 0;
    using Sum = Vec;
    using Step = Vec;
    static Step step(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
    static void keep(uint8_t* p, Step a) { store(reinterpret_cast<float*>(p), a); }
    static void unpack(const uint8_t* p, Step (&to)[steps]) { to[0] = step(p); }
    static Vec item(const uint8_t* p) { return spread(*reinterpret_cast<const float*>(p)); }
    static Sum multiply_add(Step weights, Vec x, Sum sum) { return muladd(x, weights, sum); }
};

struct Bf16 : Fp32 {
    static constexpr bool unpacks = true;
    static constexpr int steps = 2;
    static constexpr int line_inputs = 2;
    static void unpack(const uint8_t* p, Step (&to)[steps]) { load_pairs(p, to[0], to[1]); }
};
