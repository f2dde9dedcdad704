// Byte-level BPE from tables that were made when the model was exported; docs/edge.md tells their layout.
//
// Text is cut by the pre-tokeniser's pattern into words, and in each word the two neighbours of the lowest rank are
// joined, the leftmost first, until none are left to join (Sennrich et al. 2016, arXiv 1508.07909).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "mapping.h"

namespace autoglm::edge {

class Tokenizer {
public:
    // Throws Fault unless every table lies inside the file and every number inside its table.
    explicit Tokenizer(const std::string& path);

    int size() const { return size_; }  // one more than the largest id
    size_t bytes() const { return file_.size(); }

    // Memory for texts of so many bytes; longer ones are refused by encode().
    void reserve(size_t text_bytes);
    size_t reserved_bytes() const;
    size_t longest() const { return longest_; }

    // Append the ids of a text; none is special. Throws Fault: not UTF-8, or too long.
    void encode(const std::string& text, std::vector<int32_t>& ids);

    // The bytes that an id stands for; none of special ones, or where there is no such id.
    const uint8_t* piece(int32_t id, size_t& count) const;

private:
    struct Merge {
        uint32_t left, right, rank, made;
    };
    struct Run {
        uint32_t first, mask;  // code points from here on are in the classes of the mask
    };
    // Of a pattern: some code points of a class, or a look ahead that there is none; kEnd: an alternative's end.
    struct Element {
        uint8_t kind, bit;
        uint16_t least, most, unused;
    };
    struct Split {
        uint32_t first, last, keep_gaps, unused;  // elements; whether what no alternative matches stays
    };
    struct Added {
        uint32_t offset, count, id, pass;
    };
    template <class T> struct Table {
        const T* data = nullptr;
        size_t count = 0;
        const T& operator[](size_t at) const { return data[at]; }
    };
    struct Symbol {
        uint32_t id;
        int32_t before, behind;
        uint32_t taken;
    };
    struct Candidate {
        uint32_t rank, at, made;
    };

    template <class T> Table<T> table(int number) const;
    void check() const;
    void encode_plain(size_t first, size_t last, uint32_t pass, std::vector<int32_t>& ids);
    void split(size_t first, size_t last, size_t number, std::vector<int32_t>& ids);
    bool match(size_t element, size_t at, size_t last, size_t& end) const;
    void encode_word(const uint8_t* bytes, size_t count, std::vector<int32_t>& ids);
    void propose(size_t left);
    const Merge* find_merge(uint32_t left, uint32_t right) const;
    bool find_piece(const uint8_t* bytes, size_t count, uint32_t& id) const;

    Mapping file_;
    int size_ = 0;
    Table<uint32_t> piece_offsets_, byte_ids_, sorted_;
    Table<uint8_t> piece_bytes_, added_bytes_;
    Table<Merge> merges_;
    Table<Run> runs_;
    Table<Element> elements_;
    Table<Split> splits_;
    Table<Added> added_;

    size_t longest_ = 0;
    const uint8_t* text_ = nullptr;
    std::vector<uint32_t> offsets_, masks_;  // of the text's code points
    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
};

}  // namespace autoglm::edge
