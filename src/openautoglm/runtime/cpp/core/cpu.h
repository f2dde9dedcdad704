// Which instruction path runs: asked of the processor, or forced by OPENAUTOGLM_ISA.
#pragma once

#include <string>
#include <vector>

namespace autoglm {

enum class Isa { portable, avx2, avx512 };

const char* name_of(Isa isa);

// What this processor and this build can run, best last.
std::vector<Isa> supported_isas();

// The path named `asked`; if empty, the one in OPENAUTOGLM_ISA; if that is empty too, the best.
// Throws std::invalid_argument for an unknown name or a path that cannot run here.
Isa choose_isa(const std::string& asked);

}  // namespace autoglm
