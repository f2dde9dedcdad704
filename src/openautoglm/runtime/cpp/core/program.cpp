#include "core/program.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <utility>

namespace autoglm {

namespace {

// A step of more work than that (some ten milliseconds of one thread) is always the team's.
constexpr int64_t kLargeProducts = 256'000'000, kLargeBytes = 64'000'000;

void expect(bool holds, const std::string& fault) {
    if (!holds) throw std::invalid_argument(fault);
}

// Fault unless all numbers lie in [0, below); returns the largest.
int check_numbers(const int32_t* numbers, int count, int below, const char* name) {
    int32_t least = 0, most = 0;
    for (int i = 0; i < count; ++i) {
        least = std::min(least, numbers[i]);
        most = std::max(most, numbers[i]);
    }
    expect(least >= 0 && most < below, std::string(name) + " lie outside 0 to " + std::to_string(below - 1));
    return most;
}

}  // namespace

Program::Program(Team& team, const Kernels& kernels, Cache& cache, int max_rows, int max_wanted, int max_positions,
                 size_t arena_bytes)
    : team_(team), kernels_(kernels), cache_(cache), max_rows_(max_rows), max_wanted_(max_wanted),
      max_positions_(max_positions), arena_(arena_bytes) {
    expect(max_rows >= 1 && max_wanted >= 1 && max_positions >= 1, "a program needs rows, wanted rows and positions");
    expect(max_rows < (1 << 24) && max_wanted < (1 << 24), "so many rows are too many for one step");
}

int Program::declare_weight(const PackedView& shape) {
    weights_.push_back(shape);
    weights_.back().panels = nullptr;
    return static_cast<int>(weights_.size()) - 1;
}

int Program::declare_tensor(Format format, int64_t rows, int64_t columns) {
    expect(format == Format::fp32 || format == Format::bf16, "a tensor is fp32 or bf16");
    expect(rows >= 1 && columns >= 1 && rows < (1 << 30) && columns < (1 << 30), "a tensor is empty or too large");
    tensors_.push_back({format, rows, columns, nullptr});
    return static_cast<int>(tensors_.size()) - 1;
}

int Program::declare_table(double theta, int dims) {
    tables_.emplace_back(theta, dims, max_positions_);
    return static_cast<int>(tables_.size()) - 1;
}

void Program::bind_weight(int number, const uint8_t* panels, size_t bytes) {
    PackedView& view = weights_.at(static_cast<size_t>(number));
    expect(bytes == payload_bytes(view), "a weight of " + std::to_string(bytes) + " bytes should have " +
                                             std::to_string(payload_bytes(view)));
    expect(reinterpret_cast<uintptr_t>(panels) % 64 == 0, "a weight does not lie at a multiple of 64 bytes");
    view.panels = panels;
}

void Program::bind_tensor(int number, const void* data, size_t bytes) {
    Tensor& tensor = tensors_.at(static_cast<size_t>(number));
    const size_t each = tensor.format == Format::fp32 ? 4 : 2;
    expect(bytes == each * static_cast<size_t>(tensor.rows) * static_cast<size_t>(tensor.columns),
           "a tensor has " + std::to_string(bytes) + " bytes, which is not its size");
    expect(reinterpret_cast<uintptr_t>(data) % each == 0, "a tensor does not lie at a multiple of its elements");
    tensor.data = data;
}

void Program::add(Call call) {
    for (const Place& place : call.inputs) check_place(place);
    for (const Place& place : call.outputs) check_place(place);
    check_resources(call);
    check_shapes(call);
    reserve_for(call);
    if (call.kind == Kind::embedding) {
        const int64_t rows = call.weight >= 0 ? weights_[call.weight].outputs : tensors_[call.tensor].rows;
        vocabulary_ = static_cast<int>(std::min<int64_t>(vocabulary_, rows));
    }
    if (call.kind == Kind::linear || call.kind == Kind::quantised_rows_linear) {
        const PackedView& weight = weights_[call.weight];
        (call.outputs[0].extent == Extent::rows ? row_products_ : wanted_products_) +=
            static_cast<int64_t>(weight.outputs) * weight.inputs;
        product_bytes_ += static_cast<int64_t>(payload_bytes(weight));
    }
    for (const Place& place : call.outputs)
        if (place.space == Space::logits) logits_width_ = static_cast<int>(place.stride);
    calls_.push_back(std::move(call));
    turns_.reset();
}

size_t Program::table_bytes() const {
    size_t bytes = 0;
    for (const RotaryTable& table : tables_) bytes += table.bytes();
    return bytes;
}

void Program::begin(const StepArgs& args) {
    begun_ = false;
    const CacheView& view = cache_.view(0);
    expect(args.page_size == view.page_size, "the layout was made for pages of another size");
    expect(args.rows >= 1 && args.rows <= max_rows_ && args.wanted_count <= max_wanted_, "too many rows or none");
    check_numbers(args.ids, args.rows, vocabulary_, "ids");
    const int furthest = check_numbers(args.positions, args.rows, max_positions_, "positions");
    check_numbers(args.wanted, args.wanted_count, args.rows, "wanted");
    layout_ = lay_out(args.first_rows, args.lengths, args.page_table, args.sequences, args.table_width, args.rows,
                      view.pages, view.page_size);
    for (RotaryTable& table : tables_) table.make(furthest + 1);
    args_ = args;
    if (!turns_) turns_.reset(new std::atomic<int64_t>[calls_.size()]);
    for (size_t i = 0; i < calls_.size(); ++i) turns_[i].store(0, std::memory_order_relaxed);
    begun_ = true;
}

bool Program::may_be_alone() const {
    return measures_ && team_.size() > 1 && product_bytes_ <= kLargeBytes &&
           row_products_ * args_.rows + wanted_products_ * args_.wanted_count <= kLargeProducts;
}

void Program::step(const StepArgs& args) {
    begin(args);
    if (!may_be_alone()) return run(0, size());
    using Clock = std::chrono::steady_clock;
    const bool alone = crew_.alone(args.rows);
    const Clock::time_point began = Clock::now();
    run_on(alone ? solo_ : team_, 0, size());
    crew_.took(args.rows, alone, std::chrono::duration<double>(Clock::now() - began).count());
}

void Program::run_on(Team& team, int first, int last) {
    expect(begun_ && first >= 0 && first <= last && last <= size(), "no step was begun, or it has no such calls");
    for (int number = first; number < last; ++number) expect_bound(calls_[number]);
    team.run([&](int index) {
        const Member member{team, kernels_, scratch_, index};
        for (int number = first; number < last; ++number) {
            const Call& call = calls_[number];
            if (call.barrier && number > first) team.barrier();
            execute(call, member, turns_[number]);
        }
    });
}

void Program::expect_bound(const Call& call) const {
    bool bound = call.weight < 0 || weights_[call.weight].panels != nullptr;
    bound = bound && (call.tensor < 0 || tensors_[call.tensor].data != nullptr);
    for (const Place& place : call.inputs)
        bound = bound && (place.space != Space::tensor || tensors_[place.offset].data != nullptr);
    if (!bound) throw std::logic_error("a weight of the program was not loaded");
}

}  // namespace autoglm
