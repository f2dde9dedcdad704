// Programs, packing and blocks of memory, as Python sees them.
#pragma once

#include <nanobind/nanobind.h>

namespace autoglm {

void bind_program(nanobind::module_& m);
void bind_packing(nanobind::module_& m);

}  // namespace autoglm
