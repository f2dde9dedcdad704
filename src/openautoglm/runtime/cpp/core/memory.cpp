#include "core/memory.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include <sys/mman.h>

namespace autoglm {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = 4096;
constexpr size_t kHugeFrom = size_t{16} << 20;  // smaller blocks are often used in part, and small pages come as needed

size_t round_up(size_t bytes, size_t to) {
    if (bytes > SIZE_MAX - to) throw std::bad_alloc();
    return (bytes + to - 1) / to * to;
}

#ifdef __SANITIZE_ADDRESS__  // its own allocator, to the byte: it does not see what lies behind a mapping

uint8_t* map_aligned(size_t bytes, size_t) {
    void* data = nullptr;
    if (posix_memalign(&data, 128, bytes) != 0) throw std::bad_alloc();
    return static_cast<uint8_t*>(std::memset(data, 0, bytes));
}
void unmap(void* data, size_t) { std::free(data); }

#else

// Map `bytes` at a multiple of `alignment`: map more, give back what lies before and behind.
uint8_t* map_aligned(size_t bytes, size_t alignment) {
    const size_t wider = round_up(bytes, alignment) + alignment;
    void* mapped = mmap(nullptr, wider, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    const auto first = reinterpret_cast<uintptr_t>(mapped);
    const uintptr_t start = (first + alignment - 1) / alignment * alignment;
    if (start > first) munmap(mapped, start - first);
    const uintptr_t end = start + bytes;
    if (first + wider > end) munmap(reinterpret_cast<void*>(end), first + wider - end);
    return reinterpret_cast<uint8_t*>(start);
}
void unmap(void* data, size_t bytes) { munmap(data, bytes); }

#endif

}  // namespace

Memory::Memory(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
#ifdef __SANITIZE_ADDRESS__
    mapped_ = bytes;
    data_ = map_aligned(bytes, 0);
    return;
#endif
    const bool huge = bytes >= kHugeFrom;
    mapped_ = round_up(bytes, huge ? kHugePage : kPage);
    data_ = map_aligned(mapped_, huge ? kHugePage : kPage);
#ifdef MADV_HUGEPAGE
    if (huge) (void)madvise(data_, mapped_, MADV_HUGEPAGE);  // advice only: small pages serve as well, slower
#endif
}

Memory::~Memory() {
    if (data_) unmap(data_, mapped_);
}

Memory::Memory(Memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_, other.mapped_);
    return *this;
}

void Memory::reserve(size_t bytes) {
    if (bytes > bytes_) *this = Memory(bytes);
}

}  // namespace autoglm
