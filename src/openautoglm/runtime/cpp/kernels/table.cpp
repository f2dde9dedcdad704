#include "kernels/table.h"

namespace autoglm {

const Kernels& kernels_for(Isa isa) {
#ifdef AUTOGLM_X86
    if (isa == Isa::avx2) return avx2_kernels();
    if (isa == Isa::avx512) return avx512_kernels();
#endif
    (void)isa;
    return portable_kernels();
}

}  // namespace autoglm
