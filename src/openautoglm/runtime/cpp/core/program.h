// A lowered program: operator calls in a flat list, their values at places of one arena that were assigned before. The
// team walks the list in one region; a barrier stands only where a call depends on what others did since the last one.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/call.h"
#include "core/crew.h"
#include "core/operators.h"
#include "core/rotary_table.h"

namespace autoglm {

struct StepArgs {
    const int32_t *ids, *positions, *wanted;
    int rows, wanted_count;
    const int32_t *first_rows, *lengths, *page_table;
    int sequences;
    int64_t table_width;
    int page_size;
    float* logits;  // [wanted_count, logits_width]
};

class Program {
public:
    // Throws std::bad_alloc.
    Program(Team& team, const Kernels& kernels, Cache& cache, int max_rows, int max_wanted, int max_positions,
            size_t arena_bytes);

    // Declare what calls refer to by its number. The bytes are bound later, and may be bound anew between runs; whoever
    // binds them keeps them alive.
    int declare_weight(const PackedView& shape);
    int declare_tensor(Format format, int64_t rows, int64_t columns);
    int declare_table(double theta, int dims);
    void bind_weight(int number, const uint8_t* panels, size_t bytes);
    void bind_tensor(int number, const void* data, size_t bytes);
    // Append a call. Throws std::invalid_argument unless all that it reads and writes exists and fits.
    void add(Call call);

    int size() const { return static_cast<int>(calls_.size()); }
    int logits_width() const { return logits_width_; }
    size_t arena_bytes() const { return arena_.size(); }
    size_t scratch_bytes() const { return scratch_.bytes(); }
    size_t table_bytes() const;

    // Check a step and make ready for it. Throws std::invalid_argument naming the fault, std::logic_error if something
    // is not bound.
    void begin(const StepArgs& args);
    // Run calls [first, last) of the step that was begun, as one region of the team.
    void run(int first, int last) { run_on(team_, first, last); }
    // Begin and run a whole step; on the caller's thread alone where that is measured and found to be faster.
    void step(const StepArgs& args);
    void measure_threads() { measures_ = true; }
    const Crew& crew() const { return crew_; }

private:
    void check_place(const Place& place) const;
    void check_resources(const Call& call) const;
    void check_shapes(const Call& call) const;
    void check_attention(const Call& call) const;
    void check_plugin(const Call& call) const;
    void reserve_for(const Call& call);
    void expect_bound(const Call& call) const;
    bool may_be_alone() const;
    void run_on(Team& team, int first, int last);

    void execute(const Call& call, const Member& member, std::atomic<int64_t>& turn) const;
    void execute_norm(const Call& call, const Member& member, int rows) const;
    void execute_product(const Call& call, const Member& member, int rows, std::atomic<int64_t>& turn) const;
    void execute_value(const Call& call, const Member& member, int rows) const;
    void execute_attention(const Call& call, const Member& member, std::atomic<int64_t>& turn) const;
    void execute_plugin(const Call& call, const Member& member) const;

    int count(Extent extent) const { return extent == Extent::rows ? args_.rows : args_.wanted_count; }
    int most(Extent extent) const { return extent == Extent::rows ? max_rows_ : max_wanted_; }
    Rows rows_at(const Place& place) const;
    Codes codes_at(const Place& place) const;
    const int32_t* numbers_at(const Place& place) const;
    autoglm_tensor tensor_at(const Place& place) const;

    Team& team_;
    Team solo_{1};  // no thread but the caller's
    const Kernels& kernels_;
    Cache& cache_;
    const int max_rows_, max_wanted_, max_positions_;
    int vocabulary_ = 1 << 30;  // ids lie below it
    int logits_width_ = 0;
    Memory arena_;
    Scratch scratch_;
    std::vector<PackedView> weights_;
    std::vector<Tensor> tensors_;
    std::vector<RotaryTable> tables_;
    std::vector<Call> calls_;
    std::unique_ptr<std::atomic<int64_t>[]> turns_;  // of each call: how much of its work is taken
    StepArgs args_{};
    Layout layout_{};
    bool begun_ = false;
    bool measures_ = false;
    Crew crew_;
    int64_t row_products_ = 0, wanted_products_ = 0, product_bytes_ = 0;  // of the products: each row's, of all weights
};

}  // namespace autoglm
