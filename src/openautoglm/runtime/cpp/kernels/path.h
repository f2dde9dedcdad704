// The table of the path in whose namespace this is included, after all its kernels.

const Kernels& table() {
    static const Kernels kernels{matmul_float, matmul_codes, quantise,    sum_squares, scale_row,  add_rows,
                                 mul_rows,     silu,         silu_mul,    rotary,      widen_bf16, widen_int8,
                                 write_cache,  attend,       argmax,      exponentials, tally,      collect,
                                 clear_below,  sum_blocks,   burn_int8,   burn_fp32,   walk};
    return kernels;
}
