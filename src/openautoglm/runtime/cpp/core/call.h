// One operator call of a program: what it is, where its values lie, and what else it takes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "autoglm_kernel.h"
#include "core/packed.h"
#include "kernels/table.h"

namespace autoglm {

enum class Kind : uint8_t {
    embedding, gather_rows, linear, quantised_rows_linear, quantise_rows, rms_norm, rms_norm_quantise, add_rms_norm,
    add_rms_norm_quantise, add, mul, silu, silu_mul, silu_mul_quantise, rotary, attention, plugin
};

// The kind by its name here. Throws std::invalid_argument for an unknown one.
Kind kind_of(const std::string& name);

// fp32 values in the arena; int8 codes with their scales and sums in the arena; the logits; the numbers that come with
// a step; a tensor of the program.
enum class Space : uint8_t { arena, codes, logits, ids, positions, wanted, tensor };
Space space_of(const std::string& name);

// How many rows: those of the step, or those whose logits are wanted.
enum class Extent : uint8_t { rows, wanted };

struct Place {
    Space space = Space::arena;
    Extent extent = Extent::rows;
    int64_t offset = 0;  // arena and codes: bytes from its start; logits: columns; of a tensor its number
    int64_t stride = 0;  // values from one row to the next; arena and logits only
    int width = 0;       // values of a row
    int group = 0;       // of codes: values that share a scale, 0 for the whole row
};

// What a call takes beside its places; which of these count depends on its kind.
struct Call {
    Kind kind = Kind::add;
    bool barrier = true;  // before it
    std::vector<Place> inputs, outputs;
    int weight = -1, tensor = -1, table = -1;  // numbers of a packed weight, a tensor, a rotary table
    float eps = 0, scale = 0;
    int head_dim = 0, layer = 0;
    autoglm_kernel kernel = nullptr;
    std::vector<std::string> names;  // attributes of a plug-in's operator
    std::vector<double> values;
};

constexpr int kMostPlaces = 64;  // inputs, outputs or attributes of a call

// Weights that are not packed: tables that rows are taken of, weights of norms, inputs of plug-ins.
struct Tensor {
    Format format;  // fp32 or bf16
    int64_t rows, columns;
    const void* data;  // nullptr until it is bound
};

// Bytes of codes, scales and sums of `rows` rows, in this order, each part at a multiple of 64.
size_t codes_bytes(int rows, const Grouping& grouping);

}  // namespace autoglm
