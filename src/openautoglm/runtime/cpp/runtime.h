// The team of Python, and each operator on arrays of numpy. Every size is checked here, before the interpreter's lock is
// given back and a kernel runs.
#pragma once

#include <string>
#include <vector>

#include "arrays.h"
#include "core/sampler.h"

namespace autoglm {

// The team of Python: threads, the kernels of one instruction path, and their scratch. One operator at a time.
class Runtime {
public:
    Runtime(int threads, const std::string& isa, std::vector<int> cpus, int nice)
        : isa_(choose_isa(isa)), kernels_(kernels_for(isa_)), team_(threads, std::move(cpus), nice) {}

    Team& team() { return team_; }
    const Kernels& kernels() const { return kernels_; }
    int threads() const { return team_.size(); }
    std::string isa() const { return name_of(isa_); }

    void linear(const PackedMatrix& weight, In x, Out out) {
        const PackedView& view = weight.view();
        expect(x.shape(1) == static_cast<size_t>(view.inputs), "x has " + std::to_string(x.shape(1)) +
               " columns, the weight " + std::to_string(view.inputs) + " inputs");
        expect(out.shape(0) == x.shape(0) && out.shape(1) == static_cast<size_t>(view.outputs), "out has a wrong shape");
        expect_apart(x, out);
        const Rows from = rows_of(x, "x"), to = rows_of(out, "out");
        const int rows = static_cast<int>(x.shape(0));
        std::atomic<int64_t> next{0};
        region([&](int members, Scratch& scratch) {
            scratch.reserve_codes(view, rows);
            scratch.reserve_linear(members, view, rows);
        },
               [&](const Member& member) { autoglm::linear(member, view, from, rows, to, next); });
    }

    void rms_norm(In x, Whole<const float, 1> weight, float eps, Out out) {
        expect_same_shape(x, out, "x and out");
        expect(weight.shape(0) == x.shape(1), "the norm's weight does not fit x");
        const Rows from = rows_of(x, "x"), to = rows_of(out, "out");
        const int rows = static_cast<int>(x.shape(0)), width = static_cast<int>(x.shape(1));
        region([&](const Member& m) { autoglm::rms_norm(m, from, weight.data(), rows, width, eps, to); });
    }

    void add_rms_norm(Out x, In y, Whole<const float, 1> weight, float eps, Out out) {
        expect_same_shape(x, y, "x and y");
        expect_same_shape(x, out, "x and out");
        expect(weight.shape(0) == x.shape(1), "the norm's weight does not fit x");
        const Rows base = rows_of(x, "x"), more = rows_of(y, "y"), to = rows_of(out, "out");
        const int rows = static_cast<int>(x.shape(0)), width = static_cast<int>(x.shape(1));
        region([&](int members, Scratch& scratch) { scratch.reserve_rows(members, width); }, [&](const Member& m) {
            autoglm::add_rms_norm(m, base, more, weight.data(), rows, width, eps, base, to);
        });
    }

    void rotary(Out x, Numbers positions, Whole<const float, 2> table, int head_dim) {
        const Rows rows = rows_of(x, "x");
        const int dims = static_cast<int>(table.shape(1));
        expect(head_dim >= 1 && x.shape(1) % head_dim == 0, "x does not consist of heads of head_dim");
        expect(dims % 2 == 0 && dims <= head_dim, "the table turns an even number of dimensions, at most head_dim");
        expect(positions.shape(0) == x.shape(0), "a position is needed for every row");
        expect_below(positions, static_cast<int64_t>(table.shape(0)), "a position lies outside the table");
        const int count = static_cast<int>(x.shape(0)), heads = static_cast<int>(x.shape(1)) / head_dim;
        region([&](const Member& m) {
            autoglm::rotary(m, rows, count, heads, head_dim, dims, table.data(), positions.data(), rows);
        });
    }

    void silu_mul(In gate, In up, Out out) {
        expect_same_shape(gate, up, "gate and up");
        expect_same_shape(gate, out, "gate and out");
        const Rows gates = rows_of(gate, "gate"), ups = rows_of(up, "up"), to = rows_of(out, "out");
        const int rows = static_cast<int>(gate.shape(0)), width = static_cast<int>(gate.shape(1));
        region([&](const Member& m) { autoglm::silu_mul(m, gates, ups, rows, width, to); });
    }

    void sample(In logits, Whole<const float, 1> temperature, Numbers top_k, Whole<const float, 1> top_p,
                Whole<const float, 1> min_p, Whole<const double, 1> uniforms, Whole<int32_t, 1> ids,
                Whole<float, 1> logprobs) {
        const size_t count = logits.shape(0);
        for (size_t given : {temperature.shape(0), top_k.shape(0), top_p.shape(0), min_p.shape(0), uniforms.shape(0),
                             ids.shape(0), logprobs.shape(0)})
            expect(given == count, "sampling needs one of everything for every row");
        expect(logits.shape(1) >= 1, "logits of no ids");
        const int vocabulary = static_cast<int>(logits.shape(1));
        const SampleArgs args{rows_of(logits, "logits"), static_cast<int>(count), vocabulary, temperature.data(),
                              top_k.data(), top_p.data(), min_p.data(), uniforms.data(), ids.data(), logprobs.data()};
        std::atomic<int64_t> next{0};
        region([&](int members, Scratch& scratch) { scratch.reserve(members, sampler_scratch(vocabulary)); },
               [&](const Member& m) { autoglm::sample(m, args, next); }, logits.size() <= kFewLogits);
    }

    void gather_fp32(Whole<const float, 2> table, Numbers numbers, Out out) {
        take({Format::fp32, table.data(), nullptr, static_cast<int64_t>(table.shape(0))}, table.shape(1), numbers, out);
    }
    void gather_bf16(Whole<const uint16_t, 2> table, Numbers numbers, Out out) {
        take({Format::bf16, table.data(), nullptr, static_cast<int64_t>(table.shape(0))}, table.shape(1), numbers, out);
    }
    void gather_int8(Whole<const int8_t, 2> table, Whole<const float, 1> scales, Numbers numbers, Out out) {
        expect(scales.shape(0) == table.shape(0), "a scale is needed for every row of the table");
        take({Format::int8, table.data(), scales.data(), static_cast<int64_t>(table.shape(0))}, table.shape(1), numbers, out);
    }

    void attention(Cache& cache, int layer, In q, In k, In v, Numbers first_rows, Numbers lengths,
                   Whole<const int32_t, 2> page_table, float scale, Out out) {
        expect(layer >= 0 && layer < cache.layers(), "the cache has no such layer");
        const CacheView& view = cache.view(layer);
        const size_t kv_width = static_cast<size_t>(view.kv_heads) * view.head_dim;
        expect(q.shape(1) > 0 && q.shape(1) % kv_width == 0, "the heads of q are no multiple of the cache's kv heads");
        expect_same_shape(q, out, "q and out");
        expect_same_shape(k, v, "k and v");
        expect(k.shape(0) == q.shape(0) && k.shape(1) == kv_width, "k and v do not fit q or the cache");
        expect(first_rows.shape(0) == lengths.shape(0) + 1 && page_table.shape(0) == lengths.shape(0),
               "first_rows, lengths and page_table do not fit each other");
        const int rows = static_cast<int>(q.shape(0)), heads = static_cast<int>(q.shape(1)) / view.head_dim;
        const Rows queries = rows_of(q, "q"), keys = rows_of(k, "k"), values = rows_of(v, "v"), to = rows_of(out, "out");
        expect_apart(q, out);
        const Layout layout = lay_out(first_rows.data(), lengths.data(), page_table.data(),
                                      static_cast<int>(lengths.shape(0)), static_cast<int64_t>(page_table.shape(1)),
                                      rows, view.pages, view.page_size);
        const AttentionArgs args{view, queries.data, to.data, heads, queries.stride, to.stride, scale};
        std::atomic<int64_t> next{0};
        region([&](int members, Scratch& scratch) {
            scratch.reserve_attention(members, heads / view.kv_heads, view.head_dim);
        },
               [&](const Member& member) { write_and_attend(member, args, layout, keys, values, next); });
    }

    // Run body(member) on all members of the team, or on the caller alone, after reserve(members, scratch).
    template <class Reserve, class Body> void region(const Reserve& reserve, const Body& body, bool by_caller = false) {
        nb::gil_scoped_release released;
        std::lock_guard<std::mutex> alone(scratch_lock_);
        reserve(team_.size(), scratch_);
        Team& team = by_caller ? solo_ : team_;
        team.run([&](int index) { body(Member{team, kernels_, scratch_, index}); });
    }
    template <class Body> void region(const Body& body) { region([](int, Scratch&) {}, body); }

private:
    void take(const Table& table, size_t width, const Numbers& numbers, const Out& out) {
        expect(out.shape(0) == numbers.shape(0) && out.shape(1) == width, "out has a wrong shape");
        expect_below(numbers, table.entries, "a row number lies outside the table");
        const Rows to = rows_of(out, "out");
        const int rows = static_cast<int>(out.shape(0));
        region([&](const Member& m) { gather(m, table, numbers.data(), rows, static_cast<int>(width), to); });
    }

    static constexpr size_t kFewLogits = 1 << 14;  // chosen from sooner than the team is awake

    const Isa isa_;
    const Kernels& kernels_;
    Team team_;
    Team solo_{1};
    Scratch scratch_;
    std::mutex scratch_lock_;
};

}  // namespace autoglm
