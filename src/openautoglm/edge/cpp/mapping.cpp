#include "mapping.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"

namespace autoglm::edge {

Mapping::Mapping(const std::string& path) {
    const int handle = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    expect(handle >= 0, path + " cannot be opened: " + std::strerror(errno));
    struct stat facts {};
    if (fstat(handle, &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_size <= 0) {
        close(handle);
        throw Fault(path + " is no file, or empty; make the folder again with autoglm edge");
    }
    void* mapped = mmap(nullptr, static_cast<size_t>(facts.st_size), PROT_READ, MAP_PRIVATE, handle, 0);
    const int fault = errno;
    close(handle);
    expect(mapped != MAP_FAILED, path + " cannot be mapped: " + std::strerror(fault));
    data_ = static_cast<const uint8_t*>(mapped);
    size_ = static_cast<size_t>(facts.st_size);
}

Mapping::~Mapping() {
    if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

std::string read_text(const std::string& path, size_t most_bytes) {
    FILE* file = std::fopen(path.c_str(), "rb");
    expect(file != nullptr, path + " cannot be opened: " + std::strerror(errno));
    std::string text;
    char block[4096];
    for (size_t count; text.size() <= most_bytes && (count = std::fread(block, 1, sizeof block, file)) > 0;)
        text.append(block, count);
    std::fclose(file);
    expect(text.size() <= most_bytes, path + " is too long");
    return text;
}

size_t address_space() {
    FILE* file = std::fopen("/proc/self/statm", "r");
    if (file == nullptr) return 0;
    unsigned long pages = 0;
    const int found = std::fscanf(file, "%lu", &pages);
    std::fclose(file);
    return found == 1 ? pages * static_cast<size_t>(sysconf(_SC_PAGESIZE)) : 0;
}

size_t peak_resident() {
    // not getrusage(): its peak may be that of the process that started this one
    FILE* file = std::fopen("/proc/self/status", "r");
    if (file == nullptr) return 0;
    char line[256];
    unsigned long kib = 0;
    while (std::fgets(line, sizeof line, file) != nullptr && std::sscanf(line, "VmHWM: %lu kB", &kib) != 1) {}
    std::fclose(file);
    return static_cast<size_t>(kib) << 10;
}

uint32_t crc32(const uint8_t* bytes, size_t count) {
    static uint32_t table[256];
    if (table[1] == 0)
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) value = value & 1 ? 0xEDB88320 ^ value >> 1 : value >> 1;
            table[i] = value;
        }
    uint32_t sum = 0xFFFFFFFF;
    for (size_t i = 0; i < count; ++i) sum = table[(sum ^ bytes[i]) & 0xFF] ^ sum >> 8;
    return sum ^ 0xFFFFFFFF;
}

}  // namespace autoglm::edge
