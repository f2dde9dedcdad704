/* The kernel in C: sum = x + norm(y) * inner, normed = norm(sum) * outer, where a norm divides a row by its root mean
 * square. A member of the team does every members-th row, from its own number on. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <string.h>

#include "autoglm_kernel.h"

static float *row_of(const autoglm_tensor *tensor, int64_t row) {
    return (float *)tensor->data + row * tensor->stride;
}

static double number_of(const autoglm_call *call, const char *name) {
    for (int32_t place = 0; place < call->attributes_count; place++)
        if (strcmp(call->names[place], name) == 0) return call->values[place];
    return 0.0;
}

/* 1 / root mean square */
static float scale_of(const float *row, int64_t columns, double eps) {
    double squares = 0.0;
    for (int64_t column = 0; column < columns; column++) squares += (double)row[column] * row[column];
    return (float)(1.0 / sqrt(squares / (double)columns + eps));
}

static void sandwich_norm(const autoglm_call *call) {
    const double eps = number_of(call, "eps");
    const int64_t columns = call->inputs[0].columns;
    const float *inner = row_of(&call->inputs[2], 0), *outer = row_of(&call->inputs[3], 0);
    for (int64_t row = call->member; row < call->inputs[0].rows; row += call->members) {
        const float *x = row_of(&call->inputs[0], row), *y = row_of(&call->inputs[1], row);
        float *sum = row_of(&call->outputs[0], row), *normed = row_of(&call->outputs[1], row);
        const float within = scale_of(y, columns, eps);
        for (int64_t column = 0; column < columns; column++)
            sum[column] = x[column] + y[column] * within * inner[column];
        const float around = scale_of(sum, columns, eps);
        for (int64_t column = 0; column < columns; column++) normed[column] = sum[column] * around * outer[column];
    }
}

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "sandwich_norm._native", .m_size = -1};

PyMODINIT_FUNC PyInit__native(void) {
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    PyObject *kernel = PyCapsule_New((void *)sandwich_norm, AUTOGLM_KERNEL_NAME, NULL);
    if (kernel == NULL || PyModule_AddObjectRef(module, "kernel", kernel) < 0) {
        Py_XDECREF(kernel);
        Py_DECREF(module);
        return NULL;
    }
    Py_DECREF(kernel);
    return module;
}
