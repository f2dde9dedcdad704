// The table of the path in whose namespace this is included, after vec_*.h and codes_*.h.

const Kernels& table() {
    static const Kernels kernels{matmul_float, matmul_codes, quantise,   rms_norm,    add_rows, rotary,
                                 silu_mul,     widen_bf16,   widen_int8, write_cache, attend};
    return kernels;
}
