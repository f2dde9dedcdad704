#include "kernels/table.h"

namespace autoglm {

namespace {

constexpr int64_t kChunkBytes = 384 << 10;  // activations that a thread's second cache holds
constexpr int kLeastRows = 48;              // so that weights are worth fetching

size_t to_line(size_t bytes) { return (bytes + 63) / 64 * 64; }

// A row of items, apart from a power of two, so that rows do not meet in the cache.
int64_t item_stride(const PackedView& view) {
    const size_t padded = view.inputs % 2 ? sizeof(float) * (view.inputs + 1) : 0;
    const size_t each = view.width > 0 ? size_t{2} * view.width : padded;
    return each == 0 ? 0 : static_cast<int64_t>(to_line(each) + 64);
}

int most_rows(const PackedView& view) {
    const int64_t each = view.width > 0 ? int64_t{2} * view.width : int64_t{4} * view.inputs;
    const int64_t fitting = kChunkBytes / each;
    return fitting > kLeastRows ? static_cast<int>(fitting) : kLeastRows;
}

int chunk_rows(const PackedView& view, int rows) {
    const int most = most_rows(view);
    if (rows <= most) return rows > 0 ? rows : 1;
    const int chunks = (rows + most - 1) / most;  // of nearly equal size, whole tiles where possible
    const int even = ((rows + chunks - 1) / chunks + 23) / 24 * 24;
    return even < most ? even : most;
}

}  // namespace

MatmulScratch::MatmulScratch(const PackedView& view, int all_rows, void* memory)
    : rows(chunk_rows(view, all_rows)), item_stride(autoglm::item_stride(view)) {
    uint8_t* at = static_cast<uint8_t*>(memory);
    totals = reinterpret_cast<float*>(at);
    partial = reinterpret_cast<int32_t*>(at + sizeof(float) * kPanel * rows);
    ready = at + 2 * sizeof(float) * kPanel * rows;
    items = ready + kReadyBytes;
    scales = reinterpret_cast<float*>(items + item_stride * rows);
    starts = reinterpret_cast<int32_t*>(scales + static_cast<int64_t>(view.groups) * rows);
}

size_t matmul_scratch(const PackedView& view, int rows) {
    const size_t each = sizeof(float) * 2 * (kPanel + view.groups) + static_cast<size_t>(item_stride(view));
    const int most = most_rows(view);  // fewer rows may make a larger chunk: they need not be cut
    return kReadyBytes + each * (rows < 1 ? 1 : rows < most ? rows : most);
}

int64_t take_turn(std::atomic<int64_t>& next) { return next.fetch_add(1, std::memory_order_relaxed); }

size_t attention_scratch(int queries_per_kv, int head_dim) {
    const size_t queries = static_cast<size_t>(queries_per_kv) * kTileRows, block = size_t{kBlockTokens} * head_dim;
    return sizeof(float) * (2 * block + queries * (kBlockTokens + 2));
}

const Kernels& kernels_for(Isa isa) {
#ifdef AUTOGLM_X86
    if (isa == Isa::avx2) return avx2_kernels();
    if (isa == Isa::avx512) return avx512_kernels();
#endif
    (void)isa;
    return portable_kernels();
}

}  // namespace autoglm
