// Tiles of a product: some rows times some columns of a panel, for a block of inputs; see product.h for how they make a
// product. Included inside the namespace of a path, after its formats.

inline int fewer(int64_t a, int64_t b) { return static_cast<int>(a < b ? a : b); }

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
    const int32_t* starts;  // [groups, rows]: a group's sum of codes times -middle; times -1 if there are zero points
    int rows;
    float* totals;         // [rows, 32]
    int32_t* partial;      // [rows, 32] of groups that are cut into blocks
    uint8_t* ready;        // steps of a block, half a panel after the other
};

constexpr int kAhead = 2048;  // bytes

// Memory that will be wanted soon and is asked for meanwhile, a little with each line, so that no request waits for
// another: past the end of a matrix that does no harm.
struct Ahead {
    const uint8_t* at;
    int64_t step;
    void fetch_next() {
        __builtin_prefetch(at, 0, 2);
        at += step;
    }
};

// Call add(row, column, step of weights, item of the row) for all of `lines` lines, which it then has behind it.
// READY: `weights` are steps, COLUMNS registers each, else packed.
template <class F, int ROWS, int COLUMNS, bool READY, class Add>
inline void go_over_lines(const uint8_t*& weights, const uint8_t*& items, int64_t item_stride, int lines, Ahead& ahead,
                          const Add& add) {
    for (int line = 0; line < lines; ++line) {
        if constexpr (READY) ahead.fetch_next();
        else if constexpr (F::coded || ROWS > 1) {  // the stream of one row of fp32 is fetched ahead by the processor
            __builtin_prefetch(weights + kAhead);
            __builtin_prefetch(weights + kAhead + 64);
        }
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
inline void add_lines(const uint8_t* weights, const uint8_t* items, int64_t item_stride, int lines, Ahead& ahead,
                      typename F::Sum (&sums)[ROWS][COLUMNS]) {
    if constexpr (F::flush == 0) {
        go_over_lines<F, ROWS, COLUMNS, READY>(weights, items, item_stride, lines, ahead,
                                               [&](int r, int c, auto step, auto item) {
            sums[r][c] = F::multiply_add(step, item, sums[r][c]);
        });
    } else {  // narrow sums, widened before they could overflow
        constexpr int most = F::flush / F::steps;
        for (; lines > 0; lines -= most) {
            typename F::Step narrow[ROWS][COLUMNS];
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < COLUMNS; ++c) narrow[r][c] = F::narrow_zero();
            go_over_lines<F, ROWS, COLUMNS, READY>(weights, items, item_stride, lines < most ? lines : most, ahead,
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
void code_tile(const Chunk& chunk, const uint8_t* panel, const Block& block, int column, int row, Ahead ahead) {
    const PackedView& view = *chunk.view;
    const int64_t group_bytes = view.group_bytes, stride = chunk.item_stride;
    const int lines = block.lines, group_items = view.group_padded / F::line_inputs * F::steps * 4;
    const int64_t line_at = static_cast<int64_t>(block.line) * kLine + column * kVector;
    const int64_t data_at = sizeof(GroupHead) * (view.zeros ? 2 : 1) + line_at;
    const uint8_t* ready = chunk.ready + static_cast<int64_t>(column) * kVector * F::steps * block.groups * lines;
    const uint8_t* items = chunk.items + row * stride + static_cast<int64_t>(block.group) * group_items +
                           static_cast<int64_t>(block.line) * F::steps * 4;
    const uint8_t* group = panel + sizeof(PanelHead) + block.group * group_bytes;
    const int64_t rows = chunk.rows;
    const float* scales = chunk.scales + block.group * rows + row;
    const int32_t* starts = chunk.starts + block.group * rows + row;
    float* totals = chunk.totals + row * kPanel + column * Vec::lanes;
    int32_t* partial = chunk.partial + row * kPanel + column * Vec::lanes;
    for (int left = block.groups; left > 0; --left) {
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
        add_lines<F, ROWS, COLUMNS, READY>(READY ? ready : group + data_at, items, stride, lines, ahead, sums);
        if (READY) ready += static_cast<int64_t>(COLUMNS) * kVector * F::steps * lines;
        if (!block.ends) {
            for (int r = 0; r < ROWS; ++r)
                for (int c = 0; c < COLUMNS; ++c) store_ints(partial + r * kPanel + c * Vec::lanes, sums[r][c]);
            return;  // a group that is cut is alone in its block
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
        items += group_items;
        group += group_bytes;
        scales += rows;
        starts += rows;
    }
}

template <class F, int ROWS, int COLUMNS, bool READY>
void float_tile(const Chunk& chunk, const uint8_t* panel, const Block& block, int column, int row, Ahead ahead) {
    float* totals = chunk.totals + row * kPanel + column * Vec::lanes;
    Vec sums[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < COLUMNS; ++c) sums[r][c] = load(totals + r * kPanel + c * Vec::lanes);
    const uint8_t* items = chunk.items + row * chunk.item_stride + static_cast<int64_t>(block.line) * F::steps * 4;
    const uint8_t* weights = READY ? chunk.ready + static_cast<int64_t>(column) * kVector * F::steps * block.lines
                                   : panel + sizeof(PanelHead) + static_cast<int64_t>(block.line) * kLine +
                                         column * kVector;
    add_lines<F, ROWS, COLUMNS, READY>(weights, items, chunk.item_stride, block.lines, ahead, sums);
    for (int r = 0; r < ROWS; ++r)
        for (int c = 0; c < COLUMNS; ++c) store(totals + r * kPanel + c * Vec::lanes, sums[r][c]);
}

template <class F, int ROWS, int COLUMNS, bool READY>
inline void tile(const Chunk& chunk, const uint8_t* panel, const Block& block, int column, int row, Ahead ahead) {
    if constexpr (F::coded) code_tile<F, ROWS, COLUMNS, READY>(chunk, panel, block, column, row, ahead);
    else float_tile<F, ROWS, COLUMNS, READY>(chunk, panel, block, column, row, ahead);
}

// One tile of `count` rows, at most ROWS.
template <class F, int ROWS, int COLUMNS, bool READY>
inline void tile_of(int count, const Chunk& chunk, const uint8_t* panel, const Block& block, int column, int row,
                    Ahead ahead) {
    if (count == ROWS) return tile<F, ROWS, COLUMNS, READY>(chunk, panel, block, column, row, ahead);
    if constexpr (ROWS > 1) tile_of<F, ROWS - 1, COLUMNS, READY>(count, chunk, panel, block, column, row, ahead);
}
