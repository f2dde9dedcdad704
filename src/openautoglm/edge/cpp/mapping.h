// A file, mapped into memory read-only, and the sizes that the system knows of this process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace autoglm::edge {

class Mapping {
public:
    Mapping() = default;
    explicit Mapping(const std::string& path);  // throws Fault
    ~Mapping();
    Mapping(Mapping&& other) noexcept;
    Mapping& operator=(Mapping&& other) noexcept;

    const uint8_t* data() const { return data_; }
    size_t size() const { return size_; }

private:
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

std::string read_text(const std::string& path, size_t most_bytes);  // throws Fault

size_t address_space();  // bytes mapped by this process: program, stacks, files, memory; 0 where the system has no /proc
size_t peak_resident();  // the most bytes it had in memory so far, mapped files included; 0 without /proc

uint32_t crc32(const uint8_t* bytes, size_t count);  // that of zlib

}  // namespace autoglm::edge
