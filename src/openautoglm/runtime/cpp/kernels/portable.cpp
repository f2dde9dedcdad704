// The kernels in plain C++, for any processor. As in the other paths, all of it but one
// function lies in a nameless namespace: nothing that another unit might link comes from here.

#include "kernels/table.h"

namespace autoglm {

namespace {

#include "kernels/vec_portable.h"

#include "kernels/formats_float.h"

#include "kernels/formats_portable.h"

#include "kernels/tiles.h"

#include "kernels/product.h"

#include "kernels/quantise.h"

#include "kernels/rows.h"

#include "kernels/choose.h"

#include "kernels/attention.h"

#include "kernels/limits.h"

#include "kernels/path.h"

}  // namespace

const Kernels& portable_kernels() { return table(); }

}  // namespace autoglm
