#include "core/cpu.h"

#include <cstdlib>
#include <stdexcept>

namespace autoglm {

namespace {

constexpr Isa kAll[] = {Isa::portable, Isa::avx2, Isa::avx512};

bool runs_here([[maybe_unused]] Isa isa) {
    if (isa == Isa::portable) return true;
#ifdef AUTOGLM_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (isa == Isa::avx2) return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

std::string listed(const std::vector<Isa>& isas) {
    std::string text;
    for (Isa isa : isas) text += (text.empty() ? "" : ", ") + std::string(name_of(isa));
    return text;
}

}  // namespace

const char* name_of(Isa isa) {
    switch (isa) {
        case Isa::portable: return "portable";
        case Isa::avx2: return "avx2";
        case Isa::avx512: return "avx512";
    }
    return "unknown";
}

std::vector<Isa> supported_isas() {
    std::vector<Isa> found;
    for (Isa isa : kAll)
        if (runs_here(isa)) found.push_back(isa);
    return found;
}

Isa choose_isa(const std::string& asked) {
    const char* environment = std::getenv("OPENAUTOGLM_ISA");
    const std::string name = !asked.empty() ? asked : environment ? environment : "";
    const std::vector<Isa> possible = supported_isas();
    if (name.empty()) return possible.back();
    for (Isa isa : possible)
        if (name == name_of(isa)) return isa;
    for (Isa isa : kAll)
        if (name == name_of(isa))
            throw std::invalid_argument("this processor cannot run the instruction path '" + name + "', only " +
                                        listed(possible));
    throw std::invalid_argument("unknown instruction path '" + name + "'; there are portable, avx2, avx512");
}

}  // namespace autoglm
