// The KV cache: pages of keys and values for every layer. See CacheView in kernels/table.h for the layout of a page.
#pragma once

#include <cstddef>
#include <vector>

#include "core/memory.h"
#include "kernels/table.h"

namespace autoglm {

class Cache {
public:
    // Throws std::invalid_argument for sizes that do not fit the kernels, std::bad_alloc when memory is short.
    Cache(int layers, int pages, int page_size, int kv_heads, int head_dim, CacheFormat format);

    int layers() const { return static_cast<int>(views_.size()); }
    const CacheView& view(int layer) const { return views_[layer]; }
    size_t bytes() const { return memory_.size(); }

    // Copy one page of all layers to another; both exist.
    void copy_page(int from, int to);

private:
    Memory memory_;
    std::vector<CacheView> views_;
};

}  // namespace autoglm
