// Products with fp32 and bf16 weights: activations stay fp32, sums are fp32. Included inside the namespace of a path.

inline int fewer(int64_t a, int64_t b) { return static_cast<int>(a < b ? a : b); }

// One tile: ROWS rows by one panel. `taken` outputs of the panel exist.
template <int ROWS, bool BF16>
void float_tile(const uint8_t* panel, int inputs, const float* x, int64_t x_stride, float* y, int64_t y_stride,
                int taken) {
    constexpr int columns = kPanel / Vec::lanes;
    Vec sums[ROWS][columns];
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < columns; ++c) sums[r][c] = zero();
    const uint8_t* data = panel + sizeof(PanelHead);
    const int paired = BF16 ? inputs / 2 * 2 : 0;
    for (int k = 0; k < paired; k += 2, data += kPanel * 4) {
        for (int c = 0; c < columns; ++c) {
            Vec first, second;
            load_pairs(data + c * Vec::lanes * 4, first, second);
            for (int r = 0; r < ROWS; ++r) {
                sums[r][c] = muladd(spread(x[r * x_stride + k]), first, sums[r][c]);
                sums[r][c] = muladd(spread(x[r * x_stride + k + 1]), second, sums[r][c]);
            }
        }
    }
    for (int k = paired; k < inputs; ++k, data += kPanel * 4) {
        for (int c = 0; c < columns; ++c) {
            Vec weight, unused;
            if constexpr (BF16) load_pairs(data + c * Vec::lanes * 4, weight, unused);
            else weight = load(reinterpret_cast<const float*>(data) + c * Vec::lanes);
            for (int r = 0; r < ROWS; ++r) sums[r][c] = muladd(spread(x[r * x_stride + k]), weight, sums[r][c]);
        }
    }
    const float* head = reinterpret_cast<const float*>(panel);
    for (int r = 0; r < ROWS; ++r) {
        float out[kPanel];
        for (int c = 0; c < columns; ++c) {
            const int at = c * Vec::lanes;
            store(out + at, add(mul(sums[r][c], load(head + at)), load(head + kPanel + at)));
        }
        __builtin_memcpy(y + r * y_stride, out, sizeof(float) * taken);
    }
}

template <bool BF16>
void float_panel(const PackedView& view, const uint8_t* panel, const float* x, int64_t x_stride, int rows, float* y,
                 int64_t y_stride, int taken) {
    int row = 0;
    for (; row + Vec::rows <= rows; row += Vec::rows)
        float_tile<Vec::rows, BF16>(panel, view.inputs, x + row * x_stride, x_stride, y + row * y_stride, y_stride,
                                    taken);
    for (; row + 2 <= rows; row += 2)
        float_tile<2, BF16>(panel, view.inputs, x + row * x_stride, x_stride, y + row * y_stride, y_stride, taken);
    for (; row < rows; ++row)
        float_tile<1, BF16>(panel, view.inputs, x + row * x_stride, x_stride, y + row * y_stride, y_stride, taken);
}

void matmul_float(const PackedView& view, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                  int64_t first, int64_t last) {
    for (int64_t number = first; number < last; ++number) {
        const uint8_t* panel = view.panels + number * view.panel_bytes;
        const int taken = fewer(kPanel, view.outputs - number * kPanel);
        float* out = y + number * kPanel;
        if (view.format == Format::bf16) float_panel<true>(view, panel, x, x_stride, rows, out, y_stride, taken);
        else float_panel<false>(view, panel, x, x_stride, rows, out, y_stride, taken);
    }
}
