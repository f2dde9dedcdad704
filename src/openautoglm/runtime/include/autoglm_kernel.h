/* A kernel of your own for the target `native`, in C or anything that can be called like C.
 *
 * Hand the function over as a PyCapsule named "autoglm_kernel":
 *
 *     register_kernel("my_operator", "native")(capsule)
 *
 * Every thread of the team calls it at the same time with the same tensors, each with a `member` of its own from 0 to
 * members - 1, and does its part: rows or columns that no other member writes. What earlier operators wrote is there;
 * what this one writes is there for the next. It must not throw, block, or touch the interpreter: its lock is not held.
 */
#ifndef AUTOGLM_KERNEL_H
#define AUTOGLM_KERNEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define AUTOGLM_KERNEL_VERSION 1
#define AUTOGLM_KERNEL_NAME "autoglm_kernel"

enum { AUTOGLM_FP32 = 1, AUTOGLM_INT32 = 2 };

/* Values [rows, columns], `stride` values from one row to the next. A vector among the weights is one row; ids,
 * positions and row numbers are rows of one column. Inputs are read only. */
typedef struct autoglm_tensor {
    void* data;
    int64_t rows, columns, stride;
    int32_t type; /* AUTOGLM_FP32 or AUTOGLM_INT32 */
} autoglm_tensor;

typedef struct autoglm_call {
    uint32_t version; /* AUTOGLM_KERNEL_VERSION */
    int32_t member, members;
    int32_t inputs_count, outputs_count, attributes_count;
    const autoglm_tensor* inputs;
    const autoglm_tensor* outputs;
    const char* const* names; /* attributes that are numbers, [attributes_count] */
    const double* values;
} autoglm_call;

typedef void (*autoglm_kernel)(const autoglm_call* call);

#ifdef __cplusplus
}
#endif

#endif
