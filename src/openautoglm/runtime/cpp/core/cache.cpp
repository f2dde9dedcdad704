#include "core/cache.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace autoglm {

namespace {

void expect(bool holds, const char* fault) {
    if (!holds) throw std::invalid_argument(fault);
}

// a * b; memory beyond 2^47 bytes exists nowhere
size_t times(size_t a, size_t b) {
    if (b != 0 && a > (size_t{1} << 47) / b) throw std::bad_alloc();
    return a * b;
}

size_t to_line(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t value_bytes(CacheFormat format) {
    return format == CacheFormat::fp32 ? 4 : format == CacheFormat::bf16 ? 2 : 1;
}

}  // namespace

Cache::Cache(int layers, int pages, int page_size, int kv_heads, int head_dim, CacheFormat format) {
    expect(layers >= 1 && pages >= 1 && kv_heads >= 1, "a cache needs layers, pages and kv heads");
    expect(page_size >= kSegment && page_size % kSegment == 0 && page_size <= 1024,
           "a page holds a multiple of 16 tokens, at most 1024");
    expect(head_dim >= kSegment && head_dim % kSegment == 0 && head_dim <= kMostDims,
           "head_dim must be a multiple of 16, at most 1024");
    const bool int8 = format == CacheFormat::int8;
    const size_t tokens = times(times(pages, kv_heads), page_size);
    const size_t block = to_line(times(times(tokens, head_dim), value_bytes(format)));
    const size_t scales = int8 ? to_line(times(tokens, sizeof(float))) : 0;
    memory_ = Memory(times(2 * (block + scales), layers));
    uint8_t* at = memory_.data();
    for (int layer = 0; layer < layers; ++layer, at += 2 * (block + scales)) {
        CacheView view{format, pages, page_size, kv_heads, head_dim, at, at + block, nullptr, nullptr};
        if (int8) {
            view.key_scales = reinterpret_cast<float*>(at + 2 * block);
            view.value_scales = reinterpret_cast<float*>(at + 2 * block + scales);
        }
        views_.push_back(view);
    }
}

void Cache::copy_page(int from, int to) {
    if (from == to) return;
    for (const CacheView& view : views_) {
        const size_t tokens = static_cast<size_t>(view.kv_heads) * view.page_size;
        auto copy = [&](void* base, size_t bytes) {
            uint8_t* start = static_cast<uint8_t*>(base);
            std::memcpy(start + to * bytes, start + from * bytes, bytes);
        };
        for (void* block : {view.keys, view.values}) copy(block, tokens * view.head_dim * value_bytes(view.format));
        if (view.format != CacheFormat::int8) continue;
        for (float* scales : {view.key_scales, view.value_scales}) copy(scales, tokens * sizeof(float));
    }
}

}  // namespace autoglm
