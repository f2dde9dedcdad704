// The model's text manifest: what the exporter lowered, line by line. docs/edge.md tells the lines.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/call.h"

namespace autoglm::edge {

struct Item {  // a piece of the weights' file
    size_t offset, bytes;
    uint32_t checksum;
    std::string name;
};

struct Weight {  // packed panels
    Format format;
    int64_t rows, columns, group;
    bool symmetric;
    size_t item, first, bytes;  // `first` bytes of the item come before it
};

struct PlainRows {  // plain rows
    Format format;
    int64_t rows, columns;
    size_t item;
};

struct Turning {  // a rotary table
    double theta;
    int dims;
};

struct Piece {  // of a record's template: a text, or the value of a column behind it
    std::string text, column;
    bool is_column;
};

struct Manifest {
    std::string name, weights, tokenizer;  // the model's name, and files beside the manifest
    int rows = 0, positions = 0, vocabulary = 0, max_tokens = 0;
    size_t arena = 0;
    int layers = 0, page_size = 0, kv_heads = 0, head_dim = 0;
    std::string cache;
    std::vector<int32_t> stop, before, after, empty;  // ids: ends, around a prompt, and of no prompt at all
    std::string lead, strip;                          // texts: before a prompt, and dropped from an answer's start
    std::vector<Piece> record;
    bool lenient = false;  // columns of a record may be missing

    std::vector<Item> items;
    std::vector<Weight> weight_list;
    std::vector<PlainRows> row_list;
    std::vector<Turning> tables;
    std::vector<Call> calls;
};

// Throws Fault, naming the line.
Manifest read_manifest(const std::string& path);

}  // namespace autoglm::edge
