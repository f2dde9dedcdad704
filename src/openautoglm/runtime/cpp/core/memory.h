// Memory for weights, caches and scratch: zeroed, aligned, on pages of 2 MiB where the system grants them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace autoglm {

// Owns `bytes` of memory, aligned to 64 at least; moves, does not copy.
class Memory {
public:
    Memory() = default;
    explicit Memory(size_t bytes);  // throws std::bad_alloc
    ~Memory();
    Memory(Memory&& other) noexcept;
    Memory& operator=(Memory&& other) noexcept;
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    uint8_t* data() const { return data_; }
    size_t size() const { return bytes_; }

    template <class T> T* as() const { return reinterpret_cast<T*>(data_); }

    // Grow to hold `bytes`; what was inside is lost when it grows.
    void reserve(size_t bytes);

private:
    uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
    size_t mapped_ = 0;
};

}  // namespace autoglm
