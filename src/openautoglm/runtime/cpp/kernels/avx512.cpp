// The kernels with AVX-512 and VNNI. Only this unit is compiled for those instructions, and all of it but one
// function lies in a nameless namespace: nothing that another unit might link comes from here.

#include <immintrin.h>

#include "kernels/table.h"

namespace autoglm {

namespace {

#include "kernels/vec_avx512.h"

#include "kernels/formats_float.h"

#include "kernels/formats_avx512.h"

#include "kernels/tiles.h"

#include "kernels/product.h"

#include "kernels/quantise.h"

#include "kernels/rows.h"

#include "kernels/choose.h"

#include "kernels/attention.h"

#include "kernels/limits.h"

#include "kernels/path.h"

}  // namespace

const Kernels& avx512_kernels() { return table(); }

}  // namespace autoglm
