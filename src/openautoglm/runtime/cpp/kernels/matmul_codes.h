// Products with int8 and int4 weights: the sum of a group is exact in 32 bits, then float(sum) * (weight scale *
// activation scale) is added up, group after group, each operation rounded by itself, so that all paths agree to the
// last bit. A path gives `code_tile<ROWS, BITS>`. Included inside the namespace of a path.

struct TileArgs {
    const PackedView* view;
    const uint8_t* panel;
    const int8_t* values;   // of the first row of the tile
    const float* scales;
    const int32_t* sums;
    float* y;
    int64_t y_stride;
    int taken;              // outputs of the panel that exist
};

// y = sums * output scale + bias, for the outputs that exist.
inline void finish_row(const TileArgs& args, int row, const float* sums) {
    const float* head = reinterpret_cast<const float*>(args.panel);
    float out[kPanel];
    for (int i = 0; i < kPanel; i += Vec::lanes)
        store(out + i, add(mul(load(sums + i), load(head + i)), load(head + kPanel + i)));
    __builtin_memcpy(args.y + row * args.y_stride, out, sizeof(float) * args.taken);
}

template <int ROWS, int BITS> void code_tile(const TileArgs& args);

template <int BITS> void code_panel(TileArgs args, int rows) {
    const PackedView& view = *args.view;
    auto step = [&](int taken) {
        args.values += static_cast<int64_t>(taken) * view.width;
        args.scales += static_cast<int64_t>(taken) * view.groups;
        args.sums += static_cast<int64_t>(taken) * view.groups;
        args.y += taken * args.y_stride;
        rows -= taken;
    };
    for (; rows >= Vec::code_rows; step(Vec::code_rows)) code_tile<Vec::code_rows, BITS>(args);
    if constexpr (Vec::code_rows > 4)
        for (; rows >= 4; step(4)) code_tile<4, BITS>(args);
    for (; rows >= 2; step(2)) code_tile<2, BITS>(args);
    for (; rows >= 1; step(1)) code_tile<1, BITS>(args);
}

void matmul_codes(const PackedView& view, const Codes& codes, int rows, float* y, int64_t y_stride, int64_t first,
                  int64_t last) {
    for (int64_t number = first; number < last; ++number) {
        const TileArgs args{&view, view.panels + number * view.panel_bytes, codes.values, codes.scales, codes.sums,
                            y + number * kPanel, y_stride, fewer(kPanel, view.outputs - number * kPanel)};
        if (view.format == Format::int8) code_panel<8>(args, rows);
        else code_panel<4>(args, rows);
    }
}
