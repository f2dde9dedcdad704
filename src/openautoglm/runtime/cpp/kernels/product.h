// Products with packed weights of every format. Included inside the namespace of a path, after tiles.h.
//
// A chunk of rows goes over panel after panel; of each panel, a block of inputs at a time, so that its weights (spread
// to registers' worth of steps when many rows pass) stay in the first cache while all tiles of rows go over them.
// int8 and int4: the sum of a group is exact in 32 bits, then fused(float(sum), weight scale * activation scale, total)
// group after group. fp32 and bf16: input after input. Neither order depends on how many rows there are, so a row's
// outputs are the same in any batch; and all paths agree on int8 and int4 to the last bit.

// Where a block lies in its panel, and how long it is.
struct Extent {
    const uint8_t* first;
    int64_t bytes;
    Extent(const PackedView& view, const uint8_t* panel, const Block& block)
        : first(panel + sizeof(PanelHead) + block.group * static_cast<int64_t>(view.group_bytes) +
                static_cast<int64_t>(block.line) * kLine),
          bytes(block.groups > 1 ? block.groups * static_cast<int64_t>(view.group_bytes)
                                 : static_cast<int64_t>(block.lines) * kLine) {}
};

// All rows over two columns at a time, in tiles of nearly equal height. The first tiles fetch the next block.
template <class F, bool READY> void block_rows(const Chunk& chunk, const uint8_t* panel, const Block& block) {
    constexpr int columns = 2, line = 64;
    const Extent extent(*chunk.view, panel, block);
    const uint8_t *next = extent.first + extent.bytes, *end = next + extent.bytes;
    const int tiles = (chunk.rows + Vec::rows - 1) / Vec::rows;
    for (int column = 0; column < kColumns; column += columns)
        for (int number = 0, row = 0; number < tiles; ++number) {
            const int count = (chunk.rows - row) / (tiles - number);
            tile_of<F, Vec::rows, columns, READY>(count, chunk, panel, block, column, row,
                                                  {next, next < end ? line : 0});
            next += static_cast<int64_t>(block.groups) * block.lines * line;
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
                        F::keep(to + ((static_cast<int64_t>(line) * F::steps + s) * columns + c) * kVector, steps[s]);
                }
            to += static_cast<int64_t>(block.lines) * F::steps * columns * kVector;
        }
}

// Call body(block) for the blocks of a row's inputs, `most` lines each at most.
template <class F, class Body> inline void over_blocks(const PackedView& view, int most, const Body& body) {
    const int inputs = F::coded ? view.group_padded : view.inputs;
    const int lines = (inputs + F::line_inputs - 1) / F::line_inputs;
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
            tile_of<F, kFewRows, kColumns, false>(chunk.rows, chunk, panel, block, 0, 0, {});
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

// A chunk over the member's own panels, and over what it gets of the rest. `turn`: which it took last and has not used,
// -1 for none; turns count on from chunk to chunk, and those of a later one are kept for it.
template <class F>
void over_turns(const Chunk& chunk, float* y, int64_t y_stride, const Turns& turns, int64_t number, int64_t& turn) {
    over_panels<F>(chunk, y, y_stride, turns.first, turns.last);
    const int64_t panels = chunk.view->panels_count, each = (panels - turns.rest + turns.grain - 1) / turns.grain;
    for (; each > 0; turn = -1) {
        if (turn < 0) turn = take_turn(*turns.next);
        if (turn >= (number + 1) * each) return;
        const int64_t first = turns.rest + (turn - number * each) * turns.grain, last = first + turns.grain;
        over_panels<F>(chunk, y, y_stride, first, last < panels ? last : panels);
    }
}

inline bool no_panels(const PackedView& view, const Turns& turns) {
    return turns.first >= turns.last && turns.rest >= view.panels_count;
}

template <class F>
void matmul_codes_as(const PackedView& view, const Codes& codes, int rows, float* y, int64_t y_stride,
                     const Turns& turns, const MatmulScratch& scratch) {
    int64_t turn = -1;
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
                F::prepare(values + static_cast<int64_t>(r) * view.width, view.width,
                           scratch.items + r * scratch.item_stride);
        }
        over_turns<F>(chunk, y + row * y_stride, y_stride, turns, row / scratch.rows, turn);
    }
}

void matmul_codes(const PackedView& view, const Codes& codes, int rows, float* y, int64_t y_stride, const Turns& turns,
                  void* memory) {
    if (no_panels(view, turns)) return;
    const MatmulScratch scratch(view, rows, memory);
    if (view.format == Format::int8) matmul_codes_as<Int8>(view, codes, rows, y, y_stride, turns, scratch);
    else matmul_codes_as<Int4>(view, codes, rows, y, y_stride, turns, scratch);
}

template <class F>
void matmul_float_as(const PackedView& view, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                     const Turns& turns, const MatmulScratch& scratch) {
    const bool odd = view.inputs % F::line_inputs != 0;
    int64_t turn = -1;
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
        over_turns<F>(chunk, y + row * y_stride, y_stride, turns, row / scratch.rows, turn);
    }
}

void matmul_float(const PackedView& view, const float* x, int64_t x_stride, int rows, float* y, int64_t y_stride,
                  const Turns& turns, void* memory) {
    if (no_panels(view, turns)) return;
    const MatmulScratch scratch(view, rows, memory);
    if (view.format == Format::bf16) matmul_float_as<Bf16>(view, x, x_stride, rows, y, y_stride, turns, scratch);
    else matmul_float_as<Fp32>(view, x, x_stride, rows, y, y_stride, turns, scratch);
}
