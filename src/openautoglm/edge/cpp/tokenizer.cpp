#include "tokenizer.h"

#include <algorithm>
#include <cstring>

#include "fault.h"
#include "utf8.h"

namespace autoglm::edge {

namespace {

enum : uint8_t { kClass = 0, kNone = 1, kEnd = 2, kGreedy = 3 };  // kGreedy: a class that gives nothing back
constexpr int kTables = 10;
constexpr uint16_t kNoBound = 0xFFFF;
constexpr char kFault[] = "the tokenizer's tables are damaged; make the folder again with autoglm edge";

struct Header {
    char magic[4];  // "OAGT"
    uint32_t version, size, unused;
    struct {
        uint64_t offset, bytes;
    } tables[kTables];
};

}  // namespace

template <class T> Tokenizer::Table<T> Tokenizer::table(int number) const {
    Header header;
    std::memcpy(&header, file_.data(), sizeof header);
    const auto& place = header.tables[number];
    expect(place.offset % 8 == 0 && place.offset <= file_.size() && place.bytes <= file_.size() - place.offset &&
               place.bytes % sizeof(T) == 0, kFault);
    return {reinterpret_cast<const T*>(file_.data() + place.offset), static_cast<size_t>(place.bytes / sizeof(T))};
}

Tokenizer::Tokenizer(const std::string& path) : file_(path) {
    Header header;
    expect(file_.size() >= sizeof header, kFault);
    std::memcpy(&header, file_.data(), sizeof header);
    expect(std::memcmp(header.magic, "OAGT", 4) == 0 && header.version == 1, path + " is of another version");
    expect(header.size >= 1 && header.size < (1u << 24), kFault);
    size_ = static_cast<int>(header.size);
    piece_offsets_ = table<uint32_t>(0);
    piece_bytes_ = table<uint8_t>(1);
    byte_ids_ = table<uint32_t>(2);
    merges_ = table<Merge>(3);
    sorted_ = table<uint32_t>(4);
    runs_ = table<Run>(5);
    elements_ = table<Element>(6);
    splits_ = table<Split>(7);
    added_ = table<Added>(8);
    added_bytes_ = table<uint8_t>(9);
    check();
}

void Tokenizer::check() const {
    const auto size = static_cast<uint32_t>(size_);
    bool good = piece_offsets_.count == size + 1u && byte_ids_.count == 256 && runs_.count >= 1 && runs_[0].first == 0;
    for (size_t i = 0; good && i < size; ++i) good = piece_offsets_[i] <= piece_offsets_[i + 1];
    good = good && piece_offsets_[size] <= piece_bytes_.count;
    for (size_t i = 0; good && i < 256; ++i) good = byte_ids_[i] < size;
    for (size_t i = 0; good && i < merges_.count; ++i) good = merges_[i].made < size;
    for (size_t i = 0; good && i < sorted_.count; ++i) good = sorted_[i] < size;
    for (size_t i = 0; good && i < added_.count; ++i)
        good = added_[i].id < size && added_[i].count >= 1 && added_[i].offset <= added_bytes_.count &&
               added_[i].count <= added_bytes_.count - added_[i].offset;
    for (size_t i = 0; good && i < splits_.count; ++i)
        good = splits_[i].first < splits_[i].last && splits_[i].last <= elements_.count &&
               elements_[splits_[i].last - 1].kind == kEnd;
    for (size_t i = 0; good && i < elements_.count; ++i) good = elements_[i].kind <= kGreedy && elements_[i].bit < 32;
    expect(good, kFault);
}

void Tokenizer::reserve(size_t text_bytes) {
    longest_ = text_bytes;
    offsets_.reserve(text_bytes + 1);
    masks_.reserve(text_bytes);
    symbols_.reserve(text_bytes);
    heap_.reserve(2 * text_bytes);
}

size_t Tokenizer::reserved_bytes() const {
    return longest_ * (2 * sizeof(uint32_t) + sizeof(Symbol) + 2 * sizeof(Candidate));
}

const uint8_t* Tokenizer::piece(int32_t id, size_t& count) const {
    count = 0;
    if (id < 0 || id >= size_) return piece_bytes_.data;
    count = piece_offsets_[id + 1] - piece_offsets_[id];
    return piece_bytes_.data + piece_offsets_[id];
}

void Tokenizer::encode(const std::string& text, std::vector<int32_t>& ids) {
    expect(text.size() <= longest_, "the text has " + std::to_string(text.size()) + " bytes, at most " +
                                        std::to_string(longest_) + " are taken");
    text_ = reinterpret_cast<const uint8_t*>(text.data());
    offsets_.clear();
    masks_.clear();
    for (size_t at = 0; at < text.size();) {
        const Letter letter = letter_at(text_ + at, text.size() - at);
        expect(letter.whole, "not UTF-8 at byte " + std::to_string(at));
        const Run* behind = std::upper_bound(runs_.data, runs_.data + runs_.count, letter.code,
                                             [](uint32_t code, const Run& run) { return code < run.first; });
        offsets_.push_back(static_cast<uint32_t>(at));
        masks_.push_back(behind[-1].mask);
        at += static_cast<size_t>(letter.bytes);
    }
    offsets_.push_back(static_cast<uint32_t>(text.size()));
    encode_plain(0, masks_.size(), 0, ids);
}

// Cut out added tokens: those of the first pass in the whole text, those of the second in what lies between.
void Tokenizer::encode_plain(size_t first, size_t last, uint32_t pass, std::vector<int32_t>& ids) {
    if (pass == 2 || added_.count == 0) {
        if (first < last) split(first, last, 0, ids);
        return;
    }
    size_t start = first;
    for (size_t at = first; at < last;) {
        const Added* longest = nullptr;
        for (size_t i = 0; i < added_.count; ++i) {
            const Added& token = added_[i];
            const bool fits = token.pass == pass && token.count <= offsets_[last] - offsets_[at] &&
                              (longest == nullptr || token.count > longest->count);
            if (fits && std::memcmp(text_ + offsets_[at], added_bytes_.data + token.offset, token.count) == 0)
                longest = &token;
        }
        if (longest == nullptr) {
            ++at;
            continue;
        }
        encode_plain(start, at, pass + 1, ids);
        ids.push_back(static_cast<int32_t>(longest->id));
        const uint32_t end = offsets_[at] + longest->count;
        while (at < last && offsets_[at] < end) ++at;
        start = at;
    }
    encode_plain(start, last, pass + 1, ids);
}

// Cut into words: by one pattern after the other, each within the pieces of the one before.
void Tokenizer::split(size_t first, size_t last, size_t number, std::vector<int32_t>& ids) {
    if (number == splits_.count) return encode_word(text_ + offsets_[first], offsets_[last] - offsets_[first], ids);
    const Split& pattern = splits_[number];
    size_t gap = first;
    for (size_t at = first; at < last;) {
        size_t end = at;
        for (size_t element = pattern.first; element < pattern.last && end == at;) {
            if (match(element, at, last, end)) break;
            while (elements_[element].kind != kEnd) ++element;
            ++element;
        }
        if (end == at) {
            ++at;
            continue;
        }
        if (gap < at && pattern.keep_gaps != 0) split(gap, at, number + 1, ids);
        split(at, end, number + 1, ids);
        at = gap = end;
    }
    if (gap < last && pattern.keep_gaps != 0) split(gap, last, number + 1, ids);
}

// Whether an alternative matches from `at` on, tried in the order of a backtracking engine, and where it ends.
bool Tokenizer::match(size_t element, size_t at, size_t last, size_t& end) const {
    const Element& now = elements_[element];
    if (now.kind == kEnd) {
        end = at;
        return true;
    }
    const uint32_t bit = uint32_t{1} << now.bit;
    if (now.kind == kNone) return (at == last || (masks_[at] & bit) == 0) && match(element + 1, at, last, end);
    const size_t most = now.most == kNoBound ? last - at : std::min<size_t>(now.most, last - at);
    size_t count = 0;
    while (count < most && (masks_[at + count] & bit) != 0) ++count;
    if (count < now.least) return false;
    if (now.kind == kGreedy) return match(element + 1, at + count, last, end);
    for (;; --count) {
        if (match(element + 1, at + count, last, end)) return true;
        if (count == now.least) return false;
    }
}

const Tokenizer::Merge* Tokenizer::find_merge(uint32_t left, uint32_t right) const {
    const Merge* end = merges_.data + merges_.count;
    const Merge* found = std::lower_bound(merges_.data, end, left, [right](const Merge& merge, uint32_t wanted) {
        return merge.left != wanted ? merge.left < wanted : merge.right < right;
    });
    return found != end && found->left == left && found->right == right ? found : nullptr;
}

// Where whole words come before merges: the id of a word.
bool Tokenizer::find_piece(const uint8_t* bytes, size_t count, uint32_t& id) const {
    const auto less = [&](uint32_t other) {
        size_t length = 0;
        const uint8_t* start = piece(static_cast<int32_t>(other), length);
        const int order = std::memcmp(start, bytes, std::min(length, count));
        return order != 0 ? order < 0 : length < count;
    };
    const uint32_t* found = std::partition_point(sorted_.data, sorted_.data + sorted_.count, less);
    if (found == sorted_.data + sorted_.count) return false;
    size_t length = 0;
    const uint8_t* start = piece(static_cast<int32_t>(*found), length);
    id = *found;
    return length == count && std::memcmp(start, bytes, count) == 0;
}

// Put the merge of a symbol and the one behind it on the heap, if there is one.
void Tokenizer::propose(size_t left) {
    const int32_t behind = symbols_[left].behind;
    if (behind < 0) return;
    const Merge* merge = find_merge(symbols_[left].id, symbols_[static_cast<size_t>(behind)].id);
    if (merge == nullptr) return;
    heap_.push_back({merge->rank, static_cast<uint32_t>(left), merge->made});
    std::push_heap(heap_.begin(), heap_.end(), [](const Candidate& a, const Candidate& b) {
        return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
    });
}

void Tokenizer::encode_word(const uint8_t* bytes, size_t count, std::vector<int32_t>& ids) {
    uint32_t whole = 0;
    if (sorted_.count > 0 && find_piece(bytes, count, whole)) return ids.push_back(static_cast<int32_t>(whole));
    symbols_.clear();
    heap_.clear();
    for (size_t i = 0; i < count; ++i)
        symbols_.push_back({byte_ids_[bytes[i]], static_cast<int32_t>(i) - 1,
                            i + 1 < count ? static_cast<int32_t>(i) + 1 : -1, 0});
    for (size_t i = 0; i + 1 < count; ++i) propose(i);
    while (!heap_.empty()) {
        const Candidate best = heap_.front();
        std::pop_heap(heap_.begin(), heap_.end(), [](const Candidate& a, const Candidate& b) {
            return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
        });
        heap_.pop_back();
        Symbol& left = symbols_[best.at];
        if (left.taken != 0 || left.behind < 0) continue;
        Symbol& right = symbols_[static_cast<size_t>(left.behind)];
        const Merge* merge = find_merge(left.id, right.id);
        if (merge == nullptr || merge->made != best.made) continue;  // one of the two was joined meanwhile
        left.id = merge->made;
        left.behind = right.behind;
        right.taken = 1;
        if (left.behind >= 0) symbols_[static_cast<size_t>(left.behind)].before = static_cast<int32_t>(best.at);
        if (left.before >= 0) propose(static_cast<size_t>(left.before));
        propose(best.at);
    }
    for (int32_t at = 0; at >= 0; at = symbols_[static_cast<size_t>(at)].behind)
        ids.push_back(static_cast<int32_t>(symbols_[static_cast<size_t>(at)].id));
}

}  // namespace autoglm::edge
