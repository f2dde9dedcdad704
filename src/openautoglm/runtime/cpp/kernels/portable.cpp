// The kernels in plain C++. Only this unit is compiled for those instructions, and all of it but one
// function lies in a nameless namespace: nothing that another unit might link comes from here.

#include "kernels/table.h"

namespace autoglm {

namespace {

#include "kernels/vec_portable.h"

#include "kernels/matmul_float.h"
#include "kernels/quantise.h"

#include "kernels/matmul_codes.h"

#include "kernels/codes_portable.h"

#include "kernels/rows.h"

#include "kernels/attention.h"

#include "kernels/path.h"

}  // namespace

const Kernels& portable_kernels() { return table(); }

}  // namespace autoglm
