// Products with packed weights of every format. Included inside the namespace of a path, after its formats.
//
// A chunk of rows goes over panel after panel; of each panel, a block of inputs at a time, so that its weights (spread
// to registers' worth of steps when many rows pass) stay in the first cache while all tiles of rows go over them.
// int8 and int4: the sum of a group is exact in 32 bits, then fused(float(sum), weight scale * activation scale, total)
// group after group. fp32 and bf16: input after input. Neither order depends on how many rows there are, so a row's
// outputs are the same in any batch; and all paths agree on int8 and int4 to the last bit.

constexpr int kVector = Vec::lanes * 4;         // bytes of a register
constexpr int kColumns = kPanel / Vec::lanes;   // registers of a line
constexpr int kLine = kPanel * 4;
constexpr int kFewRows = Vec::rows * 2 / kColumns;  // of a tile as wide as a panel

// Part of the inputs: lines [line, line + lines) of each of `groups` groups; fp32 and bf16 have one group.
struct Block {
    int group, groups, line, lines;
    bool begins, ends;  // whether groups begin, end in this block
};

struct Chunk {
    const PackedView* view;
    const uint8_t* items;  // [rows], item_stride bytes apart
    int64_t item_stride;
    const float* scales;    // [groups, rows] of activations; int8 and int4 only, as starts
    const int32_t* starts;  // [groups, rows]: a group's sum of codes times -middle, of weights with zero points times -1
    int rows;
    float* totals;         // [rows, 32]
    int32_t* partial;      // [rows, 32] of groups that are cut into blocks
    uint8_t* ready;        // steps of a block, half a panel after the other
};

// Call add(row, column, step of weights, item of the row) for all of `lines` lines, which it then has behind it.
// READY: `weights` are steps, COLUMNS registers each, else packed.
template <class F, int ROWS, int COLUMNS, bool READY, class Add>
inline void go_over_lines(const uint8_t*& weights, const uint8_t*& items, int64_t item_stride, int lines, const Add& add) {
    for (int line = 0; line < lines; ++line) {
        typename F::Step steps[F::steps][COLUMNS];
        if constexpr (!READY)
            for (int c = 0; c < COLUMNS; ++c) {
                typename F::Step unpacked[F::steps];
                F::unpack(weights + c * kVector, unpacked);
                for (int s = 0; s < F::steps; ++s) steps[s][c] = unpacked[s];
            }
        for (int s = 0; s < F::steps; ++s) {
            if constexpr (READY)
                for (int c = 0; c < COLUMNS; ++c) steps[s][c] = F::step(weights + (s * COLUMNS + c) * kVector);
            for (int r = 0; r < ROWS; ++r) {
                const auto item = F::item(items + r * item_stride + 4 * s);
                for (int c = 0; c < COLUMNS; ++c) add(r, c, steps[s][c], item);
            }
        }
        weights += READY ? F::steps * COLUMNS * kVector : kLine;
        items += 4 * F::steps;
    }
}

// sums += the products of `lines` lines.
template <class F, int ROWS, int COLUMNS, bool READY>
inline void add_lines(const uint8_t* weights, const uint8_t* items, int64_t item_stride, int lines,
                      typename F::Sum (&sums)[ROWS][COLUMNS]) {
    if constexpr (F::flush == 0) {
        go_over_lines<F, ROWS, COLUMNS, READY>(weights, items, item_stride, lines, [&](int r, int c, auto step, auto item) {
            sums[r][c] = F::multiply_add(step, item, sums[r][c]);
        });
    } else {  // narrow sums, widened before they could overflow
        constexpr int most = F::flush / F::steps;
        for (; lines > 0; lines -= most) {
            typename F::Step narrow[ROWS][COLUMNS];
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < COLUMNS; ++c) narrow[r][c] = F::narrow_zero();
            go_over_lines<F, ROWS, COLUMNS, READY>(weights, items, item_stride, lines < most ? lines : most,
                                                   [&](int r, int c, auto step, auto item) {
                narrow[r][c] = F::narrow_add(step, item, narrow[r][c]);
            });
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < COLUMNS; ++c) sums[r][c] = F::widen(narrow[r][c], sums[r][c]);
        }
    }
}

// Keep the compiler from spreading a pointer to one for each place that it leads to.
template <class T> inline void keep_pointer(T*& p) { asm("" : "+r"(p)); }

// Rows [row, row + ROWS) times columns [column, column + COLUMNS) of one block.
template <class F, int ROWS, int COLUMNS, bool READY>
void code_tile(const Chunk& chunk, const uint8_t* panel, const Block& block, int column, int row) {
    const PackedView& view = *chunk.view;
    const int64_t group_bytes = view.group_bytes, stride = chunk.item_stride;
    const int lines = block.lines, group_items = view.group_padded / F::line_inputs * F::steps * 4;
    const int64_t data_at = sizeof(GroupHead) * (view.zeros ? 2 : 1) + static_cast<int64_t>(block.line) * kLine + column * kVector;
    const uint8_t* ready = chunk.ready + static_cast<int64_t>(column) * kVector * F::steps * block.groups * lines;
    const uint8_t* items = chunk.items + row * stride + static_cast<int64_t>(block.group) * group_items +
                           static_cast<int64_t>(block.line) * F::steps * 4;
    const uint8_t* group = panel + sizeof(PanelHead) + block.group * group_bytes;
    const int64_t rows = chunk.rows;
    const float* scales = chunk.scales + block.group * rows + row;
    const int32_t* starts = chunk.starts + block.group * rows + row;
    float* totals = chunk.totals + row * kPanel + column * Vec::lanes;
    int32_t* partial = chunk.partial + row * kPanel + column * Vec::lanes;
    for (int left = block.groups; left > 0; --left, items += group_items, group += group_bytes, scales += rows, starts += rows) {
        const uint16_t* halves = reinterpret_cast<const uint16_t*>(group) + column * Vec::lanes;
        typename F::Sum sums[ROWS][COLUMNS];
        for (int r = 0; r < ROWS; ++r)
            for (int c = 0; c < COLUMNS; ++c)
                sums[r][c] = block.begins ? spread_int(starts[r]) : load_ints(partial + r * kPanel + c * Vec::lanes);
        if (view.zeros && block.begins)  // what is too much in the sums: zero points times activations
            for (int c = 0; c < COLUMNS; ++c) {
                const Ints points = load_points(halves + kPanel + c * Vec::lanes);
                for (int r = 0; r < ROWS; ++r) sums[r][c] = times(points, sums[r][c]);
            }
        add_lines<F, ROWS, COLUMNS, READY>(READY ? ready : group + data_at, items, stride, lines, sums);
        if (READY) ready += static_cast<int64_t>(COLUMNS) * kVector * F::steps * lines;
        if (!block.ends) {
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < COLUMNS; ++c) store_ints(partial + r * kPanel + c * Vec::lanes, sums[r][c]);
            continue;
        }
        keep_pointer(totals);
        Vec shares[COLUMNS];
        for (int c = 0; c < COLUMNS; ++c) shares[c] = load_halves(halves + c * Vec::lanes);
        for (int r = 0; r < ROWS; ++r) {
            const Vec scale = spread(scales[r]);
            for (int c = 0; c < COLUMNS; ++c) {
                float* total = totals + r * kPanel + c * Vec::lanes;
                store(total, fused(to_floats(sums[r][c]), mul(shares[c], scale), load(total)));
            }
        }
    }
}

template <class F, int ROWS, int COLUMNS, bool READY>
void float_tile(const Chunk& chunk, const uint8_t* panel, const Block& block, int column, int row) {
    float* totals = chunk.totals + row * kPanel + column * Vec::lanes;
    Vec sums[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < COLUMNS; ++c) sums[r][c] = load(totals + r * kPanel + c * Vec::lanes);
    const uint8_t* items = chunk.items + row * chunk.item_stride + static_cast<int64_t>(block.line) * F::steps * 4;
    const uint8_t* weights = READY ? chunk.ready + static_cast<int64_t>(column) * kVector * F::steps * block.lines
                                   : panel + sizeof(PanelHead) + static_cast<int64_t>(block.line) * kLine + column * kVector;
    add_lines<F, ROWS, COLUMNS, READY>(weights, items, chunk.item_stride, block.lines, sums);
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < COLUMNS; ++c) store(totals + r * kPanel + c * Vec::lanes, sums[r][c]);
}

template <class F, int ROWS, int COLUMNS, bool READY>
inline void tile(const Chunk& chunk, const uint8_t* panel, const Block& block, int column, int row) {
    if constexpr (F::coded) code_tile<F, ROWS, COLUMNS, READY>(chunk, panel, block, column, row);
    else float_tile<F, ROWS, COLUMNS, READY>(chunk, panel, block, column, row);
}

// One tile of `count` rows, at most ROWS.
template <class F, int ROWS, int COLUMNS, bool READY>
inline void tile_of(int count, const Chunk& chunk, const uint8_t* panel, const Block& block, int column, int row) {
    if (count == ROWS) return tile<F, ROWS, COLUMNS, READY>(chunk, panel, block, column, row);
    if constexpr (ROWS > 1) tile_of<F, ROWS - 1, COLUMNS, READY>(count, chunk, panel, block, column, row);
}

// All rows over two columns at a time, in tiles of nearly equal height.
template <class F, bool READY> void block_rows(const Chunk& chunk, const uint8_t* panel, const Block& block) {
    constexpr int columns = 2;
    const int tiles = (chunk.rows + Vec::rows - 1) / Vec::rows;
    for (int column = 0; column < kColumns; column += columns)
        for (int number = 0, row = 0; number < tiles; ++number) {
            const int count = (chunk.rows - row) / (tiles - number);
            tile_of<F, Vec::rows, columns, READY>(count, chunk, panel, block, column, row);
            row += count;
        }
}

// Spread the weights of a block to steps, two columns after the other.
template <class F> void make_ready(const Chunk& chunk, const uint8_t* panel, const Block& block) {
    constexpr int columns = 2;
    const PackedView& view = *chunk.view;
    uint8_t* to = chunk.ready;
    for (int column = 0; column < kColumns; column += columns)
        for (int g = block.group; g < block.group + block.groups; ++g) {
            const uint8_t* from = panel + sizeof(PanelHead) + g * view.group_bytes + column * kVector;
            if (F::coded) from += sizeof(GroupHead) * (view.zeros ? 2 : 1);
            from += static_cast<int64_t>(block.line) * kLine;
            for (int line = 0; line < block.lines; ++line, from += kLine)
                for (int c = 0; c < columns; ++c) {
                    typename F::Step steps[F::steps];
                    F::unpack(from + c * kVector, steps);
                    for (int s = 0; s < F::steps; ++s)
                        F::keep(to + (static_cast<int64_t>(line) * F::steps + s) * columns * kVector + c * kVector, steps[s]);
                }
            to += static_cast<int64_t>(block.lines) * F::steps * columns * kVector;
        }
}

// Call body(block) for the blocks of a row's inputs, `most` lines each at most.
template <class F, class Body> inline void over_blocks(const PackedView& view, int most, const Body& body) {
    const int lines = F::coded ? view.group_padded / F::line_inputs : (view.inputs + F::line_inputs - 1) / F::line_inputs;
    const int groups = F::coded ? view.groups : 1;
    if (lines <= most) {
        const int taken = most / lines;
        for (int g = 0; g < groups; g += taken) body(Block{g, fewer(taken, groups - g), 0, lines, true, true});
        return;
    }
    for (int g = 0; g < groups; ++g)
        for (int line = 0; line < lines; line += most)
            body(Block{g, 1, line, fewer(most, lines - line), line == 0, line + most >= lines});
}

template <class F> void over_panel(const Chunk& chunk, const uint8_t* panel) {
    constexpr int most = kReadyBytes / (kLine * F::steps);  // lines of a block
    __builtin_memset(chunk.totals, 0, sizeof(float) * kPanel * chunk.rows);
    if (chunk.rows <= kFewRows)  // the panel is read once, in one stream
        over_blocks<F>(*chunk.view, 1 << 30, [&](const Block& block) {
            tile_of<F, kFewRows, kColumns, false>(chunk.rows, chunk, panel, block, 0, 0);
        });
    else if (!F::unpacks || chunk.rows < kManyRows)
        over_blocks<F>(*chunk.view, most, [&](const Block& block) { block_rows<F, false>(chunk, panel, block); });
    else
        over_blocks<F>(*chunk.view, most, [&](const Block& block) {
            make_ready<F>(chunk, panel, block);
            block_rows<F, true>(chunk, panel, block);
        });
}

// y = totals * output scale + bias, for the outputs that exist.
inline void finish_panel(const Chunk& chunk, const uint8_t* panel, float* y, int64_t y_stride, int taken) {
    const float* head = reinterpret_cast<const float*>(panel);
    for (int r = 0; r < chunk.rows; ++r) {
        float out[kPanel];
        for (int i = 0; i < kPanel; i += Vec::lanes)
            store(out + i, add(mul(load(chunk.totals + r * kPanel + i), load(head + i)), load(head + kPanel + i)));
        if (taken == kPanel) __builtin_memcpy(y + r * y_stride, out, sizeof(out));
        else __builtin_memcpy(y + r * y_stride, out, sizeof(float) * taken);
    }
}

template <class F> void over_panels(const Chunk& chunk, float* y, int64_t y_stride, int64_t first, int64_t last) {
    const PackedView& view = *chunk.view;
    for (int64_t number = first; number < last; ++number) {
        const uint8_t* panel = view.panels + number * view.panel_bytes;
        over_panel<F>(chunk, panel);
        finish_panel(chunk, panel, y + number * kPanel, y_stride, fewer(kPanel, view.outputs - number * kPanel));
    }
}

template <class F>
void matmul_codes_as(const PackedView& view, const Codes& codes, int rows, float* y, int64_t y_stride, int64_t first,
                     int64_t last, const MatmulScratch& scratch) {
    for (int row = 0; row < rows; row += scratch.rows) {
        const int count = fewer(scratch.rows, rows - row);
        const int8_t* values = codes.values + static_cast<int64_t>(row) * view.width;
        Chunk chunk{&view, reinterpret_cast<const uint8_t*>(values), view.width,
                    scratch.scales, scratch.starts, count, scratch.totals, scratch.partial, scratch.ready};
        for (int r = 0; r < count; ++r) {
            const int64_t at = static_cast<int64_t>(row + r) * view.groups;
            for (int g = 0; g < view.groups; ++g) {
                scratch.scales[g * count + r] = codes.scales[at + g];
                scratch.starts[g * count + r] = (view.zeros ? -1 : -F::middle) * codes.sums[at + g];
            }
        }
        if constexpr (F::prepares) {
            chunk.items = scratch.items;
            chunk.item_stride = scratch.item_stride;
            for (int r = 0; r < count; ++r)
                F::prepare(values + static_cast<int64_t>(r) * view.width, view.width, scratch.items + r * scratch.item_stride);
        }
        over_panels<F>(chunk, y + row * y_stride, y_stride, first, last);
    }
}

void matmul_codes(const PackedView& view, const Codes& codes, int rows, float* y, int64_t y_stride, int64_t first,
                  int64_t last, void* memory) {
    if (first >= last) return;
    const MatmulScratch scratch(view, rows, memory);
    if (view.format == Format::int8) matmul_codes_as<Int8>(view, codes, rows, y, y_stride, first, last, scratch);
    else matmul_codes_as<Int4>(view, codes, rows, y, y_stride, first, last, scratch);
}

template <class F>
void matmul_float_as(const PackedView& view, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                     int64_t first, int64_t last, const MatmulScratch& scratch) {
    const bool odd = view.inputs % F::line_inputs != 0;
    for (int row = 0; row < rows; row += scratch.rows) {
        const float* from = x + row * x_stride;
        Chunk chunk{&view, reinterpret_cast<const uint8_t*>(from), x_stride * 4, nullptr, nullptr,
                    fewer(scratch.rows, rows - row), scratch.totals, scratch.partial, scratch.ready};
        if (odd) {  // a zero for the half of a line that does not exist
            chunk.items = scratch.items;
            chunk.item_stride = scratch.item_stride;
            for (int r = 0; r < chunk.rows; ++r) {
                float* to = reinterpret_cast<float*>(scratch.items + r * scratch.item_stride);
                __builtin_memcpy(to, from + r * x_stride, sizeof(float) * view.inputs);
                to[view.inputs] = 0;
            }
        }
        over_panels<F>(chunk, y + row * y_stride, y_stride, first, last);
    }
}

void matmul_float(const PackedView& view, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                  int64_t first, int64_t last, void* memory) {
    if (first >= last) return;
    const MatmulScratch scratch(view, rows, memory);
    if (view.format == Format::bf16) matmul_float_as<Bf16>(view, x, x_stride, rows, y, y_stride, first, last, scratch);
    else matmul_float_as<Fp32>(view, x, x_stride, rows, y, y_stride, first, last, scratch);
}
